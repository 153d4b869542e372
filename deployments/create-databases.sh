#!/bin/sh
# Makes a role and a database each for Prefect and for the cache of summaries, with the passwords of env/postgres.env.
# The image of PostgreSQL runs it once, as its volume is empty; elsewhere run it as a superuser of the server.
set -eu
: "${PREFECT_DATABASE_PASSWORD:?is not set: see env/postgres.env.example}"
: "${SUMMIDX_DATABASE_PASSWORD:?is not set: see env/postgres.env.example}"

# Through the environment: what stands among a command's arguments is shown by ps.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set ECHO none
\getenv prefect_password PREFECT_DATABASE_PASSWORD
\getenv summidx_password SUMMIDX_DATABASE_PASSWORD
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE summidx LOGIN PASSWORD :'summidx_password';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE summidx OWNER summidx;
REVOKE CONNECT ON DATABASE prefect, summidx FROM PUBLIC;
SQL
