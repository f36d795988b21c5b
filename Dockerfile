# dk serve in a container. To build: docker build -t dk .
#
#   docker run -d --name db -p 127.0.0.1:5640:5640 -v dk-data:/data dk
#   dk -C tcp://127.0.0.1 branch list
#
# Whoever reaches the port may read and write everything: publish it to this
# machine only, or to a network where that is meant.
#
# A folder of the host instead of a volume, with files that stay one's own:
#
#   docker run --user "$(id -u):$(id -g)" -v "$PWD/repo:/data" ... dk
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin dk

FROM debian:bookworm-slim
# git is for pushing and for collecting garbage; ssh for pushing by it.
# A repository that is mounted may be another user's: the container is there to
# serve it, so git and dk are told that it may be used.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /data \
    && groupadd --gid 5640 dk \
    && useradd --uid 5640 --gid dk --create-home dk \
    && install -d -o dk -g dk /data /state
COPY LICENSE /usr/share/doc/dk/
COPY --from=build /src/target/release/dk /usr/local/bin/dk
USER dk
VOLUME /data
EXPOSE 5640
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s \
    CMD ["dk", "-C", "tcp://127.0.0.1:5640", "branch", "list"]
CMD ["dk", "serve", "/data", "--listen", "tcp://0.0.0.0:5640"]
