-- The flows that a role is limited to (pgflow.grant_access with flows). A role without a row is not limited.
-- By the role's number: renaming it does not lift the limit, and a later role of that name is another one.
create table pgflow.flow_grants (
  role_id regrole not null,
  flow_slug text not null,
  constraint flow_grants_pkey primary key (role_id, flow_slug)
);
