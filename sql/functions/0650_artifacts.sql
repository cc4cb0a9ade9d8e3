-- Ours: which places hold artifacts, and which runs they have outlived (docs/artifacts.md). The database holds nothing
-- of an artifact but what an output says of it: a folder of a place belongs to a run, and goes when the run is not there.

-- The id of this database among those that share a place.
create or replace function pgflow.installation_id()
returns uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.id from pgflow.installation i;
$$;

-- A worker that serves this flow keeps its artifacts there.
create or replace function pgflow.use_artifact_store(flow_slug text, url text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow._require_flow('use_artifact_store', use_artifact_store.flow_slug);
  insert into pgflow.artifact_stores (flow_slug, url)
  values (use_artifact_store.flow_slug, use_artifact_store.url)
  on conflict do nothing;
end;
$$;

-- The places that were used, of these flows or of all that the caller may use.
create or replace function pgflow.known_artifact_stores(flow_slugs text[] default null)
returns table (flow_slug text, url text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_granted text[] := pgflow._granted_flows('known_artifact_stores');
begin
  return query
    select s.flow_slug, s.url
    from pgflow.artifact_stores s
    where (flow_slugs is null or s.flow_slug = any (flow_slugs))
      and (v_granted is null or s.flow_slug = any (v_granted))
    order by s.url, s.flow_slug;
end;
$$;

-- Keeps what these runs have given, whatever becomes of them, until the end of the transaction.
create or replace function pgflow._keep_files_of(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock_shared(2, k.key)
  from (select distinct hashtext(g.id::text) as key from unnest(run_ids) g (id) order by key) k;
end;
$$;

-- Those of these runs that are not there, nor any run that has taken results of theirs. A difference of sets is
-- never made by a loop in a loop, which joins were without statistics.
create or replace function pgflow._without_trace(run_ids uuid[])
returns setof uuid
language sql
set search_path = pg_catalog, pg_temp
as $$
  select g.id from unnest(run_ids) g (id)
  except
  select r.run_id from pgflow.runs r where r.run_id = any (run_ids)
  except
  select unnest(u.sources) from pgflow.reuses u;
$$;

-- Which of these runs of a flow do not exist, or do not any more, nor any run that has taken results of theirs, or is
-- about to: who starts such a run may not have committed yet, and who begins to after the locks finds them gone.
create or replace function pgflow.gone_runs(flow_slug text, run_ids uuid[])
returns setof uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_gone uuid[];
begin
  perform pgflow._require_flow('gone_runs', gone_runs.flow_slug);
  v_gone := array(select pgflow._without_trace(run_ids));
  v_gone := array(
    select g.id
    from unnest(v_gone) g (id)
    where case
      when pg_try_advisory_lock(2, hashtext(g.id::text)) then pg_advisory_unlock(2, hashtext(g.id::text))
      else false
    end
  );
  return query select t.id from pgflow._without_trace(v_gone) t (id);
end;
$$;
