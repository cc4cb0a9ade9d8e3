-- Steps of a run whose work is to be taken from an earlier run where their input is the same. taken: of how many
-- items (of all, which items are) it was; NULL until the step is about to start. The earlier run may be gone since.
-- sources: it, and those that it took from itself: files that outputs name are in their folders.
create table pgflow.reuses (
  run_id uuid not null
    constraint reuses_run_id_fkey references pgflow.runs (run_id) on delete cascade deferrable initially deferred,
  step_slug text not null,
  source_run uuid not null,
  sources uuid[] not null,
  reads_input boolean not null,
  taken int,
  items int,
  indexes int4multirange,
  taken_at timestamptz,
  constraint reuses_pkey primary key (run_id, step_slug)
);
