-- Maps in ranges that began ahead of their parent's end and were withdrawn, which that one's being skipped does: where
-- such a map is started anew, its leases have other numbers than all before, however late somebody hands in a result.
create table pgflow.withdrawn_maps (
  run_id uuid not null,
  step_slug text not null,
  times int not null default 1,
  constraint withdrawn_maps_pkey primary key (run_id, step_slug)
);

-- The number of leases begins behind this.
alter table pgflow.range_maps add column lease_base int not null default 0;
