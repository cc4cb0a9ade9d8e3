-- Functions whose arguments are others now.
drop function if exists pgflow.set_step_policy(text, text, int, numeric, int);
drop function if exists pgflow._set_policies_from_shape(text, jsonb);
