# The image of one node. Any container engine can build it: nothing here needs BuildKit.
#
#   docker build -t parkingd .
#
# BASE is a slim image with Python 3.11 or newer, its venv module included. INDEX_URL is where pip
# finds what requirements.lock names; what comes from there must have the hashes that stand there.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG INDEX_URL=https://pypi.org/simple
ENV PIP_INDEX_URL=${INDEX_URL} PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
# First what seldom changes.
COPY requirements.lock ./
RUN python3 -m venv /opt/parkingd \
    && /opt/parkingd/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
COPY LICENSE README.md pyproject.toml setup.cfg ./
COPY docs/man ./docs/man
COPY parkingd ./parkingd
# setuptools is in the lock because it builds this one package; at run time nothing needs it or pip.
RUN /opt/parkingd/bin/pip install --no-deps --no-index --no-build-isolation '.[ops]' \
    && /opt/parkingd/bin/pip check \
    && /opt/parkingd/bin/parkingd --version \
    && /opt/parkingd/bin/pip uninstall --yes setuptools \
    && /opt/parkingd/bin/pip uninstall --yes pip

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parkingd" \
      org.opencontainers.image.description="The car park that no single machine can take down" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/parkingd /opt/parkingd
# The first is the user's below, and so is a new volume there. A tmpfs is root's, but has the mode of
# what it covers: `--tmpfs /run/parkingd` needs no options.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/parkingd && install -d -m 1777 /run/parkingd
# parkingd-ctl, run inside, finds the one daemon by PARKINGD_RUNTIME_DIR. SQLite may want to put
# something aside, and the data directory is the one place that can be written.
ENV PATH=/opt/parkingd/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PARKINGD_DATA_DIR=/var/lib/parkingd PARKINGD_RUNTIME_DIR=/run/parkingd \
    SQLITE_TMPDIR=/var/lib/parkingd
# Numeric, so that runAsNonRoot can be checked.
USER 10001:10001
VOLUME ["/var/lib/parkingd"]
# Gossip and events between nodes; health, metrics and status where --ops is given.
EXPOSE 7744 7745 9744
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: a joining node is no sick one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["parkingd-ctl", "--timeout", "4", "status"]
ENTRYPOINT ["parkingd"]
CMD []
