-- Ours: how a map's items are stored, as tasks (the contract's way) or in ranges.

-- How the items of a map are stored from its next start on.
create or replace function pgflow._storage(flow_slug text, step_slug text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select p.storage from pgflow.step_policies p
      where p.flow_slug = _storage.flow_slug and p.step_slug = _storage.step_slug
    ),
    'tasks'
  );
$$;

-- Whether this map was started in ranges.
create or replace function pgflow._is_in_ranges(run_id uuid, step_slug text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1 from pgflow.range_maps m
    where m.run_id = _is_in_ranges.run_id and m.step_slug = _is_in_ranges.step_slug
  );
$$;

-- The stored size of a map's result pages.
create or replace function pgflow._result_bytes(run_id uuid, step_slug text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(pg_column_size(p.body)), 0)
  from pgflow.pages p
  where p.run_id = _result_bytes.run_id and p.step_slug = _result_bytes.step_slug and p.is_result;
$$;

-- Raises where a page of elements is longer as text than PostgreSQL can say: whoever claims any of it is answered the
-- whole, so that no worker could claim anything beside it. A number that is stored in 16 bytes may have 131 072
-- digits: pages of less than 131 kB cannot be so long, and are not looked at.
create or replace function pgflow._require_text(first_index int, items int, body jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_column_size(body) <= 131000 then
    return;
  end if;
  begin
    perform octet_length(body::text);
    return;
  exception when program_limit_exceeded or internal_error then
    null;
  end;
  raise exception 'Items % to % are too long to be read: % bytes that would be more than 1 GB as text',
    first_index, first_index + items - 1, pg_column_size(body)
    using errcode = 'program_limit_exceeded',
          hint = 'Very large numbers and control characters are much longer as text than they are stored.';
end;
$$;
