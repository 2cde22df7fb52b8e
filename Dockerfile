# A weldline worker, or any other command of weldline.
#
#   docker build --tag weldline .
#   docker run --rm weldline --help

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
ENV NODE_ENV=production \
    WELDLINE_HOME=/var/lib/weldline \
    HF_HOME=/var/cache/huggingface
# Temporal's core trusts the system's certificates, and the slim image has none. Python is for
# `weldline tools install`: conversions and evaluations run in it.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/weldline
COPY LICENSE package.json package-lock.json .npmrc ./
# No script of a production dependency needs to run; weldline's own needs the compiler.
RUN npm ci --omit=dev --ignore-scripts && npm cache clean --force
COPY --from=build /build/dist dist
COPY deploy/worker-health.mjs deploy/
# Volumes mounted here start with this owner.
RUN install -d -o node -g node "$WELDLINE_HOME" "$HF_HOME"
USER node
VOLUME ["/var/lib/weldline", "/var/cache/huggingface"]
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
  CMD ["node", "deploy/worker-health.mjs"]
ENTRYPOINT ["node", "/opt/weldline/dist/cli/main.js"]
CMD ["worker"]
