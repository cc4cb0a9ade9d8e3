-- Ours: roles that may use some flows only (pgflow.grant_access with flows). Every function that is granted asks
-- here; where no role is limited, that is one look at an empty table.

-- The flows that the caller of the function with this name may use; NULL: all.
--
-- The caller is the role that SET ROLE chose, else who logged in: with the owner's rights current_user is the
-- owner. Whoever is limited could put a call into a function of its own with its own rights, and have another
-- role call that: so a role that may not execute the function itself may use no flow by it, once any is limited.
create or replace function pgflow._granted_flows(function_name text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_caller name;
  v_flows text[];
begin
  if not exists (select 1 from pgflow.flow_grants) then
    return null;
  end if;
  v_caller := coalesce(nullif(current_setting('role'), 'none'), session_user);
  if pg_has_role(v_caller, current_user, 'usage') then
    return null; -- the owner, its members, superusers
  end if;
  select array_agg(distinct g.flow_slug) into v_flows
  from pgflow.flow_grants g
  where pg_has_role(v_caller, g.role_id, 'usage');
  if v_flows is null and not exists (
    select 1 from pg_catalog.pg_proc p
    where p.pronamespace = 'pgflow'::regnamespace
      and p.proname = function_name
      and has_function_privilege(v_caller, p.oid, 'execute')
  ) then
    return '{}';
  end if;
  return v_flows;
end;
$$;

-- The queues of those flows, as a worker registers for them; NULL: all.
create or replace function pgflow._granted_queues(function_name text)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when g.flows is not null then array(
      select lower(f.slug) from unnest(g.flows) f (slug)
      union
      select s.queue_name from pgflow.steps s where s.flow_slug = any (g.flows)
    )
  end
  from (select pgflow._granted_flows(function_name)) g (flows);
$$;

-- Raises where the caller of the function may not use this flow.
create or replace function pgflow._require_flow(function_name text, flow_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_flows text[];
begin
  if not exists (select 1 from pgflow.flow_grants) then
    return;
  end if;
  v_flows := pgflow._granted_flows(function_name);
  if v_flows is not null and (flow_slug is null or flow_slug <> all (v_flows)) then
    raise exception 'permission denied for flow %', coalesce(quote_ident(flow_slug), 'NULL')
      using errcode = 'insufficient_privilege',
            hint = 'The owner of the schema pgflow may grant it: '
              'select pgflow.grant_access(role_name, access, flows => array[...]);';
  end if;
end;
$$;
