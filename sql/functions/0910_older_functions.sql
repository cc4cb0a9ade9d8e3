-- Ours: what an earlier release defined and no file defines any more stays in the database, with the empty
-- search_path of its time: there a caller's temporary types and tables are found before ours.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure
    from pg_catalog.pg_proc p
    where p.pronamespace = 'pgflow'::regnamespace and 'search_path=""' = any (p.proconfig)
  loop
    execute format('alter routine %s set search_path = pg_catalog, pg_temp', v_function);
  end loop;
end;
$$;
