-- Schema. Nothing in it is open to PUBLIC; roles are granted what they need (functions/0900_grants.sql).
create schema if not exists pgflow;
revoke all on schema pgflow from public;
