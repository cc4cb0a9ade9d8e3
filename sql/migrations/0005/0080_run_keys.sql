-- Names that callers give their runs, each once among the runs of a flow: who starts with one that is there gets its
-- run. input_hash is of what the run was given, by whoever started it; NULL: only its input can tell. A key goes with
-- its run. It is written before the run is, so that who comes second waits and starts nothing.
create table pgflow.run_keys (
  flow_slug text not null,
  key text not null,
  run_id uuid not null
    constraint run_keys_run_id_key unique
    constraint run_keys_run_id_fkey references pgflow.runs (run_id) on delete cascade deferrable initially deferred,
  input_hash bytea,
  constraint run_keys_pkey primary key (flow_slug, key),
  constraint key_is_a_name check (length(key) between 1 and 200)
);
