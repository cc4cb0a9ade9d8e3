-- Maps in ranges. No foreign keys: a reference to the run would make whoever claims wait for whoever settles.
-- What belongs to a run goes with it by a trigger (functions/0610_pages_of_runs.sql).

-- One row for each started map. Items before next_index were leased at least once. is_open: there may be
-- something to lease, behind next_index or handed back. source_step: whose results are the elements; NULL: they
-- are pages of its own. Who leases locks this row, and waits for nothing else while it does.
create table pgflow.range_maps (
  run_id uuid not null,
  step_slug text not null,
  flow_slug text not null,
  items int not null,
  next_index int not null default 0,
  is_open boolean not null default true,
  not_before timestamptz,
  source_step text,
  constraint range_maps_pkey primary key (run_id, step_slug),
  constraint next_index_is_within check (next_index between 0 and items)
) with (fillfactor = 40);

create index idx_range_maps_open on pgflow.range_maps (flow_slug) where is_open;

-- The items from first_index to end_index (exclusive): leased by a worker, or free, handed back by one. lease_no
-- counts leases: a result is taken from the worker and the lease that hold its item. deaths: of workers that
-- held it.
create table pgflow.ranges (
  run_id uuid not null,
  step_slug text not null,
  first_index int not null,
  end_index int not null,
  worker_id uuid,
  lease_no int not null default 0,
  deaths int not null default 0,
  leased_at timestamptz,
  constraint ranges_pkey primary key (run_id, step_slug, first_index),
  constraint range_is_not_empty check (first_index >= 0 and end_index > first_index)
);

create index idx_ranges_worker on pgflow.ranges (worker_id) where worker_id is not null;
create index idx_ranges_free on pgflow.ranges (run_id, step_slug, first_index) where worker_id is null;

-- Elements of a map and its results: arrays of consecutive ones. Written once, never changed. worker_id and
-- leased_at tell who made results, and since when it had them.
create table pgflow.pages (
  page_id bigint generated always as identity,
  run_id uuid not null,
  step_slug text not null,
  is_result boolean not null,
  first_index int not null,
  items int not null,
  body jsonb not null,
  worker_id uuid,
  leased_at timestamptz,
  written_at timestamptz not null default clock_timestamp(),
  constraint pages_pkey primary key (run_id, step_slug, is_result, first_index),
  constraint page_is_not_empty check (items > 0)
);
alter table pgflow.pages alter column body set storage external;
