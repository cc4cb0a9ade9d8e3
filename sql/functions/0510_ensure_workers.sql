-- Keeping edge functions awake (contract section 15; needs pg_net and vault, which Supabase has).
create or replace function pgflow.ensure_workers()
returns table (function_name text, invoked boolean, request_id bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_local boolean := pgflow.is_local();
  v_base_url text;
  v_headers jsonb := '{}'::jsonb;
  v_project text;
  v_token text;
  v_function text;
  v_request bigint;
begin
  if to_regnamespace('net') is null then
    raise exception 'pgflow.ensure_workers needs the extension pg_net, which this server does not have'
      using errcode = 'feature_not_supported',
            hint = 'It wakes Supabase edge functions. Workers of pgflow_mp run by themselves and do not need it.';
  end if;

  perform pgflow._require_trusted('net', array['http_post']);

  if v_local then
    v_base_url := 'http://kong:8000/functions/v1';
  else
    if to_regclass('vault.decrypted_secrets') is null then
      raise exception 'pgflow.ensure_workers needs the extension supabase_vault, which this server does not have'
        using errcode = 'feature_not_supported',
              hint = 'Install supabase_vault, or run on Supabase.';
    end if;
    perform pgflow._require_trusted('vault', array['decrypted_secrets']);
    execute $query$
      select
        max(nullif(s.decrypted_secret, '')) filter (where s.name = 'supabase_project_id'),
        coalesce(
          max(nullif(s.decrypted_secret, '')) filter (where s.name = 'pgflow_auth_secret'),
          max(nullif(s.decrypted_secret, '')) filter (where s.name = 'supabase_service_role_key')
        )
      from vault.decrypted_secrets s
    $query$ into v_project, v_token;
    if v_project is null or v_token is null then
      return;
    end if;
    v_base_url := 'https://' || v_project || '.supabase.co/functions/v1';
    v_headers := jsonb_build_object('Authorization', 'Bearer ' || v_token, 'Content-Type', 'application/json');
  end if;

  for v_function in
    select wf.function_name
    from pgflow.worker_functions wf
    where wf.enabled
      and wf.start_mode = 'http'
      and (
        v_local
        or (
          (wf.last_invoked_at is null or wf.last_invoked_at < clock_timestamp() - wf.debounce)
          and not exists (
            select 1 from pgflow.workers w
            where w.function_name = wf.function_name
              and w.stopped_at is null
              and w.deprecated_at is null
              and w.last_heartbeat_at > clock_timestamp() - wf.debounce
          )
        )
      )
    order by wf.function_name
  loop
    execute 'select net.http_post(url => $1, headers => $2, body => $3)'
      into v_request
      using v_base_url || '/' || v_function, v_headers, '{}'::jsonb;
    update pgflow.worker_functions wf
    set last_invoked_at = clock_timestamp()
    where wf.function_name = v_function;
    function_name := v_function;
    invoked := true;
    request_id := v_request;
    return next;
  end loop;
end;
$$;
