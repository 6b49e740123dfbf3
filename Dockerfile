# One image for both roles: `rouse observer` (the default) and `rouse consumer`. A job picks its
# role with its arguments; scripts and Lua library are inside the executable, and a file mounted as
# /etc/rouse/observer.lua or /etc/rouse/consumer.lua is run instead of the packaged one.

FROM debian:12-slim AS build
WORKDIR /rouse
# The packages first, by the same list as `make deps`: edits of the sources do not fetch them again.
COPY resources/deps.sh resources/
RUN resources/deps.sh build
COPY . .
RUN make BUILD=build && strip build/rouse

FROM debian:12-slim
# ca-certificates also where the brokers' CA is a public one: librdkafka and libcurl read its
# bundle.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      ca-certificates libcurl4 libjansson4 liblua5.4-0 libmicrohttpd12 librdkafka1 libuv1 \
      libyaml-0-2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /rouse/build/rouse /usr/bin/rouse
RUN rouse --version
USER 1000:1000
ENTRYPOINT ["rouse"]
CMD ["observer"]
