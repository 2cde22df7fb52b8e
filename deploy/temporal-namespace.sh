#!/bin/sh
# Registers the namespace TEMPORAL_NAMESPACE of the server at TEMPORAL_ADDRESS. Idempotent.
set -eu

attempts_left=30
until temporal operator cluster health; do
  attempts_left=$((attempts_left - 1))
  if [ "$attempts_left" -eq 0 ]; then
    echo "The Temporal server at $TEMPORAL_ADDRESS does not become healthy; see its log." >&2
    exit 1
  fi
  sleep 2
done

if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" > /dev/null 2>&1; then
  echo "namespace $TEMPORAL_NAMESPACE exists"
else
  temporal operator namespace create \
    --namespace "$TEMPORAL_NAMESPACE" --retention "$NAMESPACE_RETENTION"
fi
