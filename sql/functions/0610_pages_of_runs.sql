-- Ours: what a map in ranges has besides its step's state goes with that state, however that is deleted. The tables
-- have no foreign keys, whose locks would make whoever claims wait for whoever settles. As a foreign key's, the
-- action needs no right of who deletes. The pages of a run that is pruned go after it, piece by piece.

-- Who leases items holds the lock of the map's row, and writes its range before it lets go: so the map goes first,
-- and the next statement sees the ranges of those that were waited for.
create or replace function pgflow._delete_ranges_of_steps()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  delete from pgflow.range_maps m using deleted d where m.run_id = d.run_id and m.step_slug = d.step_slug;
  delete from pgflow.ranges g using deleted d where g.run_id = d.run_id and g.step_slug = d.step_slug;
  delete from pgflow.withdrawn_maps w using deleted d where w.run_id = d.run_id and w.step_slug = d.step_slug;
  delete from pgflow.step_counts c using deleted d where c.run_id = d.run_id and c.step_slug = d.step_slug;
  delete from pgflow.pages p
  using deleted d
  where p.run_id = d.run_id
    and p.step_slug = d.step_slug
    and not exists (select 1 from pgflow.leavings l where l.run_id = d.run_id);
  return null;
end;
$$;

-- Pages may be written before their step has a state, and stay behind where states were truncated by hand. And what
-- the run was loaded with was loaded for nothing. A load that has its id and was not started is another's: whoever
-- holds that one locked is not waited for.
create or replace function pgflow._delete_ranges_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  delete from pgflow.loads l using deleted d where l.run_id = d.run_id and l.is_started;
  delete from pgflow.range_maps m using deleted d where m.run_id = d.run_id;
  delete from pgflow.ranges g using deleted d where g.run_id = d.run_id;
  delete from pgflow.withdrawn_maps w using deleted d where w.run_id = d.run_id;
  delete from pgflow.pages p
  using deleted d
  where p.run_id = d.run_id and not exists (select 1 from pgflow.leavings l where l.run_id = d.run_id);
  return null;
end;
$$;

-- What is empty is left alone: the lock would be in the way of whoever reads it.
create or replace function pgflow._truncate_ranges()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from pgflow.range_maps) then
    truncate pgflow.range_maps;
  end if;
  if exists (select 1 from pgflow.ranges) then
    truncate pgflow.ranges;
  end if;
  if exists (select 1 from pgflow.pages) then
    truncate pgflow.pages;
  end if;
  if exists (select 1 from pgflow.withdrawn_maps) then
    truncate pgflow.withdrawn_maps;
  end if;
  if exists (select 1 from pgflow.step_counts) then
    truncate pgflow.step_counts;
  end if;
  if exists (select 1 from pgflow.loads) then
    truncate pgflow.loads;
  end if;
  if exists (select 1 from pgflow.leavings) then
    truncate pgflow.leavings;
  end if;
  return null;
end;
$$;

-- Whose step lives on was withdrawn, and may be started anew.
create or replace function pgflow._remember_withdrawn_maps()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  insert into pgflow.withdrawn_maps as w (run_id, step_slug)
  select d.run_id, d.step_slug
  from deleted d
  join pgflow.step_states ss on ss.run_id = d.run_id and ss.step_slug = d.step_slug
  on conflict on constraint withdrawn_maps_pkey do update set times = w.times + 1;
  return null;
end;
$$;

create or replace trigger remember_withdrawn_maps
  after delete on pgflow.range_maps
  referencing old table as deleted
  for each statement
  execute function pgflow._remember_withdrawn_maps();

create or replace trigger delete_ranges
  after delete on pgflow.step_states
  referencing old table as deleted
  for each statement
  execute function pgflow._delete_ranges_of_steps();

create or replace trigger delete_ranges
  after delete on pgflow.runs
  referencing old table as deleted
  for each statement
  execute function pgflow._delete_ranges_of_runs();

create or replace trigger truncate_ranges
  after truncate on pgflow.step_states
  for each statement
  execute function pgflow._truncate_ranges();
