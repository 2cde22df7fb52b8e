# A weldline worker, or any other command of weldline.
#
#   docker build --tag weldline .
#   docker run --rm weldline --help
#   docker run --rm --env TEMPORAL_ADDRESS=… weldline worker --role merge
#
# Programs that convert and evaluate (2 GB) are installed into the volume of WELDLINE_HOME, once:
# weldline tools install gguf awq eval.

FROM node:24.21.0-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# Scripts later: they build the kernel from sources that are not here yet.
RUN npm ci --ignore-scripts
COPY . .
# The native kernel's compiler comes from pip's index.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
  && npm run build:native \
  && npm run build

FROM node:24.21.0-bookworm-slim
# Debian packages beside those below, such as g++, which builds llama-imatrix.
ARG APT_PACKAGES=""
# Caches of npm and pip in the volume too: the image's own file system may be read-only.
ENV NODE_ENV=production \
    WELDLINE_HOME=/var/lib/weldline \
    HF_HOME=/var/cache/huggingface \
    npm_config_cache=/var/lib/weldline/cache/npm \
    PIP_CACHE_DIR=/var/lib/weldline/cache/pip
# Temporal's core trusts the system's certificates, and the slim image has none. Python is for
# `weldline tools install`: conversions and evaluations run in it. tini takes in what programs that
# were killed leave behind, which Node as process 1 would not.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends \
    ca-certificates python3 python3-venv tini $APT_PACKAGES \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/weldline
COPY LICENSE package.json package-lock.json .npmrc ./
# No script of a production dependency needs to run; weldline's own needs the compiler.
RUN npm ci --omit=dev --ignore-scripts --cache /tmp/npm && rm -rf /tmp/npm
COPY --from=build /build/dist dist
COPY deploy/worker-health.mjs deploy/create-bucket.mjs deploy/
# Volumes mounted here start with this owner.
RUN install -d -o node -g node "$WELDLINE_HOME" "$HF_HOME"
USER node
VOLUME ["/var/lib/weldline", "/var/cache/huggingface"]
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
  CMD ["node", "deploy/worker-health.mjs"]
ENTRYPOINT ["tini", "--", "node", "/opt/weldline/dist/cli/main.js"]
CMD ["worker"]
