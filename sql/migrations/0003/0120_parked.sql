-- How many tasks of a run a worker holds back, because their failure is to be recorded last. It counts for as
-- long as the worker lives. No reference to the run: whoever writes here would wait for whoever settles.
create table pgflow.parked (
  worker_id uuid not null,
  run_id uuid not null,
  tasks int not null,
  primary key (run_id, worker_id)
);
