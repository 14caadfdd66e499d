-- Two requests may find no tables at the same time. The second one waits for
-- the lock, and then finds nothing left to do.
begin immediate;
create table if not exists entries (
  id integer primary key autoincrement,
  title text not null,
  text text not null
);
commit;
