#!/bin/sh
# Creates Temporal's databases and schemas, or brings them up to this version. Idempotent.
# The connection is taken from the SQL_* variables.
set -eu

for schema in temporal visibility; do
  database=temporal
  [ "$schema" = temporal ] || database="temporal_$schema"
  echo "database $database"
  temporal-sql-tool --database "$database" create-database
  # Leaves a newer version alone.
  temporal-sql-tool --database "$database" setup-schema --version 0.0
  temporal-sql-tool --database "$database" update-schema \
    --schema-name "postgresql/v12/$schema"
done
