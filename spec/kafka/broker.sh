#!/usr/bin/env bash
# One Apache Kafka broker for the tests: fetched once, on loopback only, all it writes in one directory.
#
#   broker.sh start DIR     fetch (the first time), format, start, wait until it answers
#   broker.sh stop DIR      SIGTERM, SIGKILL after a deadline; the data stay
#   broker.sh restart DIR   the same ports and data again
#   broker.sh kill DIR      SIGKILL at once: the power cut
#   broker.sh hang DIR      SIGSTOP: it keeps its connections and says nothing; resume DIR ends that
#   broker.sh env DIR       print export lines: KAFKA_PLAINTEXT, KAFKA_SASL, KAFKA_CA, KAFKA_USER, KAFKA_PASSWORD
#
# KAFKA_PROPERTIES holds more lines of server.properties, for a broker that is started the first time; they win.
# KAFKA_JVM_PERFORMANCE_OPTS are options of the JVM, as for Kafka's own scripts; by default such that it starts fast.
# KAFKA_JOIN=OTHER makes it, then, broker 2 of the cluster whose controller is the broker of the directory OTHER.
#
# Needs a JDK or JRE from 17, maven (the first time), openssl and kcat. KAFKA_JARS names a directory of jars to use instead.
set -euo pipefail
umask 077

version=4.1.0
cache=${KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/rouse/kafka-$version}
start_seconds=${KAFKA_START_SECONDS:-90}
stop_seconds=${KAFKA_STOP_SECONDS:-20}

die() { echo "broker.sh: $*" >&2; exit 1; }

need() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || die "$name is missing"
    done
}

fetch_jars() {
    [ -d "$cache" ] && return
    need mvn
    local work
    mkdir -p "$(dirname "$cache")"
    work=$(mktemp -d "$cache.XXXXXX")
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rouse</groupId><artifactId>kafka-jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
POM
    echo "broker.sh: fetching Apache Kafka $version into $cache" >&2
    if ! (cd "$work" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$work/jars" >mvn.log 2>&1); then
        tail -n 20 "$work/mvn.log" >&2
        rm -rf "$work"
        die "maven could not fetch Apache Kafka $version"
    fi
    # Moved into place whole, so that two first starts at once do not see half a directory.
    mv -T "$work/jars" "$cache" 2>/dev/null || [ -d "$cache" ] || die "cannot create $cache"
    rm -rf "$work"
}

open_port() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports below the kernel's ephemeral range, so that no client's own port takes one between stop and restart.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        open_port "$port" || { echo "$port"; return; }
    done
}

certificates() {
    local dir=$1
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=Rouse test CA" \
        -keyout "$dir/ca.key" -out "$dir/ca.crt" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout "$dir/broker.key" -out "$dir/broker.csr" 2>/dev/null
    openssl x509 -req -in "$dir/broker.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 30 \
        -extfile <(echo "subjectAltName=DNS:localhost") -out "$dir/broker.crt" 2>/dev/null
    cat "$dir/broker.key" "$dir/broker.crt" "$dir/ca.crt" >"$dir/broker.pem"
}

configure() {
    local dir=$1 plain sasl password cluster
    # Of a broker that is a controller too, alone in its cluster.
    local node=1 roles=broker,controller voters controller
    voters=1@localhost:$(free_port)
    controller=,CONTROLLER://${voters#1@}
    # A cluster id that begins with '-' would be taken for an option.
    cluster=R$(openssl rand -base64 16 | tr '+/' 'ab' | cut -c2-22)
    if [ -n "${KAFKA_JOIN:-}" ]; then
        node=2 roles=broker controller=
        voters=$(sed -n 's/^controller.quorum.voters=//p' "$KAFKA_JOIN/server.properties")
        cluster=$(sed -n 's/^cluster.id=//p' "$KAFKA_JOIN/data/meta.properties")
    fi
    plain=$(free_port); sasl=$(free_port)
    password=$(openssl rand -hex 16)
    certificates "$dir"
    cat >"$dir/server.properties" <<CONF
process.roles=$roles
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://localhost:$plain,SASL_SSL://localhost:$sasl$controller
advertised.listeners=PLAINTEXT://localhost:$plain,SASL_SSL://localhost:$sasl
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_token="$password";
ssl.keystore.type=PEM
ssl.keystore.location=$dir/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/ca.crt
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=${KAFKA_JOIN_DELAY_MS:-0}
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=1000
${KAFKA_PROPERTIES:-}
CONF
    cat >"$dir/log4j2.properties" <<CONF
appender.file.type=File
appender.file.name=file
appender.file.fileName=$dir/broker.log
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{ISO8601} %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.file.ref=file
CONF
    cat >"$dir/env" <<ENV
export KAFKA_PLAINTEXT=localhost:$plain
export KAFKA_SASL=localhost:$sasl
export KAFKA_CA=$dir/ca.crt
export KAFKA_USER=token
export KAFKA_PASSWORD=$password
ENV
    java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$cache/*" \
        kafka.tools.StorageTool format -t "$cluster" -c "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; die "cannot format the data directory"; }
}

# Whether a process runs; one that has ended and that nobody has waited for does not.
running() { [ -r "/proc/$1/stat" ] && ! grep -q ') [ZX] ' "/proc/$1/stat" 2>/dev/null; }

alive() { [ -s "$1/pid" ] && running "$(<"$1/pid")"; }

launch() {
    local dir=$1 deadline
    # A session of its own: the terminal's Ctrl-C is the runner's, which stops the broker last.
    # shellcheck disable=SC2086 # several options
    setsid java -Xmx512m ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseSerialGC -XX:TieredStopAtLevel=1} -Djava.net.preferIPv4Stack=true \
        "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$cache/*" \
        kafka.Kafka "$dir/server.properties" >>"$dir/stdout.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    # shellcheck source=/dev/null
    . "$dir/env"
    deadline=$((SECONDS + start_seconds))
    until kcat -b "$KAFKA_PLAINTEXT" -L -m 1 >/dev/null 2>&1; do
        alive "$dir" || { tail -n 20 "$dir/stdout.log" "$dir/broker.log" >&2; die "the broker ended while starting"; }
        [ "$SECONDS" -lt "$deadline" ] || { stop "$dir"; die "the broker did not answer within $start_seconds s"; }
        sleep 0.1
    done
}

start() {
    local dir
    need java openssl kcat setsid
    fetch_jars
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    ! alive "$dir" || die "already running: $dir"
    [ -e "$dir/server.properties" ] || configure "$dir"
    launch "$dir"
}

stop() {
    local dir=$1 pid deadline
    alive "$dir" || { rm -f "$dir/pid"; return 0; }
    pid=$(<"$dir/pid")
    deadline=$((SECONDS + stop_seconds))
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    while running "$pid"; do
        [ "$SECONDS" -lt "$deadline" ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
    rm -f "$dir/pid"
}

[ $# -eq 2 ] || die "usage: broker.sh start|stop|restart|kill|hang|resume|env DIR"
case $1 in
    start) start "$2" ;;
    stop) stop "$2" ;;
    restart) stop "$2"; start "$2" ;;
    kill) stop_seconds=0; stop "$2" ;;
    hang) kill -STOP "$(<"$2/pid")" ;;
    resume) kill -CONT "$(<"$2/pid")" ;;
    env) cat "$2/env" ;;
    *) die "unknown command: $1" ;;
esac
