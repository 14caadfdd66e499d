-- Two requests may find no tables at the same time. The second one waits for
-- the lock, and then finds nothing left to do.
begin immediate;
create table if not exists user (
  user_id integer primary key autoincrement,
  username text not null unique collate nocase,
  email text not null,
  pw_hash text not null
);
create table if not exists follower (
  who_id integer not null references user,
  whom_id integer not null references user,
  primary key (who_id, whom_id)
);
create table if not exists message (
  message_id integer primary key autoincrement,
  author_id integer not null references user,
  text text not null,
  pub_date integer not null
);
create index if not exists message_of_author on message (author_id, pub_date);
commit;
