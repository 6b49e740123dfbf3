#!/bin/bash
# Deploys Rouse on IBM Cloud Code Engine: the observer and the consumers of resources/kafkadata. See
# usage() for what it wants; run it again after a change of scripts/, resources/kafkadata or the
# sources.
#
# Nothing here puts a secret on a command line: the API key travels by a file that only this user
# can read.
set -euo pipefail

BASEDIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

SECRET=authentication-secrets
ROUTES=topic-to-jobs
SCRIPTS=rouse-scripts
OBSERVER=ce-kafka-observer
# The jobs that kafkadata names. KAFKA_TOPIC is the job's name up to the hyphen: payments-consumer
# reads payments.
CONSUMERS=(payments-consumer shipping-consumer)
# Names that earlier observers gave their run; two of them at once would only cost twice.
OBSERVER_RUNS=("$OBSERVER" kafka-observer)

usage() {
  cat <<'TEXT'
usage: run.sh          create or update everything on Code Engine, then start the observer
       run.sh clean    remove everything it made
       run.sh --help

Before: ibmcloud login, and ibmcloud ce project select --name PROJECT.

Environment (for run.sh without "clean"):
  IAM_API_KEY          API key with which the observer submits job runs (service role Writer)
  ES_SERVICE_INSTANCE  name of the Event Streams instance that is bound to the jobs

It makes, or brings up to date: the secret with the API key, a config map with resources/kafkadata,
a config map with scripts/*.lua (mounted at /etc/rouse, so a rule is changed without building an
image), the jobs ce-kafka-observer, payments-consumer and shipping-consumer, their bindings, and the
observer's run.
TEXT
}

say() { echo "run.sh: $*"; }
die() { # CODE MESSAGE...
  local code=$1
  shift
  echo "run.sh: $*" >&2
  exit "$code"
}

# ce ARGUMENT...: one step of the Code Engine command line. Its own message is shown and says why it
# failed; ours says what had been asked for.
ce() {
  ibmcloud ce "$@" || die 1 "stopped: 'ibmcloud ce $1 ${2:-} ${4:-}' failed (its message is above)"
}
# exists KIND NAME
exists() { ibmcloud ce "$1" get --name "$2" >/dev/null 2>&1; }

check_tools() {
  command -v ibmcloud >/dev/null ||
    die 69 "ibmcloud is not installed; see https://cloud.ibm.com/docs/cli"
  ibmcloud ce project current >/dev/null 2>&1 ||
    die 69 "no Code Engine project is selected:" \
      "ibmcloud login, then ibmcloud ce project select --name PROJECT"
}

check_environment() {
  local missing=()
  [ -n "${IAM_API_KEY:-}" ] ||
    missing+=("  IAM_API_KEY          the API key with which the observer submits job runs")
  [ -n "${ES_SERVICE_INSTANCE:-}" ] ||
    missing+=("  ES_SERVICE_INSTANCE  the name of the Event Streams instance to bind to the jobs")
  [ ${#missing[@]} = 0 ] ||
    die 78 "missing in the environment:"$'\n'"$(printf '%s\n' "${missing[@]}")"
}

check_service() {
  ibmcloud resource service-instance "$ES_SERVICE_INSTANCE" -q >/dev/null 2>&1 ||
    die 78 "there is no service instance '$ES_SERVICE_INSTANCE' here (ES_SERVICE_INSTANCE);" \
      "ibmcloud resource service-instances lists them"
}

# apply KIND NAME OPTION...: create it, or bring it up to date.
apply() {
  local kind=$1 name=$2 verb=create
  shift 2
  if exists "$kind" "$name"; then verb=update; fi
  say "$verb $kind $name"
  ce "$kind" "$verb" --name "$name" "$@"
}

apply_secret() {
  local keyfile
  keyfile=$(mktemp) # readable by this user alone
  # shellcheck disable=SC2064 # the name as it is now
  trap "rm -f '$keyfile'" EXIT
  printf %s "$IAM_API_KEY" >"$keyfile"
  apply secret "$SECRET" --from-file IAM_API_KEY="$keyfile"
  rm -f "$keyfile"
  trap - EXIT
}

apply_scripts() {
  local options=() file key
  for file in "$BASEDIR"/scripts/*.lua; do options+=(--from-file "$file"); done
  # A script that is gone here must not stay there: it would still be run instead of the packaged
  # one.
  for key in $(ibmcloud ce configmap get --name "$SCRIPTS" --output json 2>/dev/null |
    grep -oE '"[A-Za-z0-9._-]+\.lua"[[:space:]]*:' | tr -d '": \t' | sort -u || true); do
    [ -e "$BASEDIR/scripts/$key" ] || options+=(--rm "$key")
  done
  apply configmap "$SCRIPTS" "${options[@]}"
}

# apply_job NAME OPTION...
apply_job() {
  local name=$1 options=() job
  shift
  # The Dockerfile is named because a job from an earlier deployment remembers another one.
  options+=(--build-source "$BASEDIR" --build-dockerfile Dockerfile --wait)
  # CE_REMOVE_COMPLETED_JOBS is left out on purpose, and taken off a job that has it from an earlier
  # deployment: the observer removes finished runs itself, and until then reads in them whether they
  # made progress.
  job=$(ibmcloud ce job get --name "$name" 2>/dev/null || true)
  case $job in *CE_REMOVE_COMPLETED_JOBS*) options+=(--env-rm CE_REMOVE_COMPLETED_JOBS) ;; esac
  apply job "$name" --mode daemon --mount-configmap /etc/rouse="$SCRIPTS" "${options[@]}" "$@"
}

# bind NAME: unless it is bound; a second binding would come with a second set of names
# (MESSAGEHUB_2_...).
bind() {
  # Only the table after "Service Bindings:" counts, and there the instance's name as a column of
  # its own: columns are two or more blanks apart, a name may hold single ones.
  if ibmcloud ce job get --name "$1" 2>/dev/null | awk -v name="$ES_SERVICE_INSTANCE" '
      /^Service Bindings:/ { table = 1 }
      table && index("  " $0 "  ", "  " name "  ") { found = 1 }
      END { exit !found }'; then
    say "job $1 is bound to $ES_SERVICE_INSTANCE"
    return
  fi
  say "bind job $1 to $ES_SERVICE_INSTANCE"
  ce job bind --name "$1" --service-instance "$ES_SERVICE_INSTANCE"
}

# A run's name is free again only when the deleted run is really gone.
remove_runs() {
  local run left
  for run in "${OBSERVER_RUNS[@]}"; do
    exists jobrun "$run" || continue
    say "delete jobrun $run"
    ce jobrun delete --name "$run" --force --ignore-not-found
    left=60
    while exists jobrun "$run"; do
      left=$((left - 1))
      [ "$left" -gt 0 ] || die 1 "stopped: jobrun $run is deleted, but still there after a minute"
      sleep 1
    done
  done
}

deploy() {
  local job
  check_environment
  check_tools
  check_service

  apply_secret
  apply configmap "$ROUTES" --from-file kafkadata="$BASEDIR/resources/kafkadata"
  apply_scripts

  # Index assignment: a run's instances are the partitions with work, without waiting for a group to
  # balance.
  for job in "${CONSUMERS[@]}"; do
    apply_job "$job" --argument consumer --cpu 0.25 --memory 0.5G \
      --env CONSUMER_GROUP="$job-group" --env KAFKA_TOPIC="${job%%-*}" --env ROUSE_ASSIGN=index
  done
  # The API key is the observer's alone. 0.125 vCPU and 0.25 GB are the smallest there is, and
  # enough.
  apply_job "$OBSERVER" --argument observer --cpu 0.125 --memory 0.25G \
    --env-from-secret "$SECRET" --env-from-configmap "$ROUTES"

  # A binding reaches a job with its next run: bind first, then submit.
  for job in "${CONSUMERS[@]}" "$OBSERVER"; do bind "$job"; done

  remove_runs
  say "submit job $OBSERVER"
  ce jobrun submit --job "$OBSERVER" --name "$OBSERVER" --cpu 0.125 --memory 0.25G
  say "done; follow it with: ibmcloud ce jobrun logs --follow --name $OBSERVER"
}

# clean goes on after a failure, so that one thing that resists does not keep all the others; it
# says what is left.
clean() {
  local failed=() run job
  # attempt WHAT COMMAND...
  attempt() {
    local what=$1
    shift
    say "$what"
    ibmcloud ce "$@" || failed+=("$what")
  }
  check_tools
  # The observer first: it would start consumers while they are taken away.
  for run in "${OBSERVER_RUNS[@]}"; do
    attempt "delete jobrun $run" jobrun delete --name "$run" --force --ignore-not-found
  done
  for job in "$OBSERVER" "${CONSUMERS[@]}"; do
    # Without it the credentials that the binding made stay behind in Event Streams.
    if [[ $(ibmcloud ce job get --name "$job" 2>/dev/null || true) == *"Service Bindings:"* ]]; then
      attempt "unbind job $job" job unbind --name "$job" --all
    fi
    attempt "delete job $job" job delete --name "$job" --force --ignore-not-found
  done
  attempt "delete configmap $SCRIPTS" configmap delete --name "$SCRIPTS" --force --ignore-not-found
  attempt "delete configmap $ROUTES" configmap delete --name "$ROUTES" --force --ignore-not-found
  attempt "delete secret $SECRET" secret delete --name "$SECRET" --force --ignore-not-found
  [ ${#failed[@]} = 0 ] || die 1 "failed:"$'\n'"$(printf '  %s\n' "${failed[@]}")"
  say "clean"
}

case ${1:-} in
"") deploy ;;
clean) clean ;;
-h | --help) usage ;;
*)
  usage >&2
  exit 2
  ;;
esac
