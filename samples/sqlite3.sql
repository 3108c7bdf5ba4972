-- What samples/sqlite3.log records: a small database in memory, filled, indexed, queried, changed and thinned out.
create table customers(id integer primary key, name text not null, town text);
create table orders(id integer primary key, customer integer references customers, amount real, note text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 250)
  insert into customers select i, 'customer ' || (i * 7919 % 257), 'town ' || (i % 17) from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
  insert into orders select i, 1 + i * 7919 % 250, (i * 104729 % 100003) / 100.0,
    substr('the quick brown fox jumps over the lazy dog and runs away', 1 + i % 20, 5 + i % 31) || ' ' || i from n;
create index by_customer on orders(customer);
select name, count(*), round(sum(amount), 2), group_concat(substr(note, 1, 4))
  from orders join customers on customers.id = customer group by customer order by 3 desc limit 10;
select town, max(amount), min(note) from orders join customers on customers.id = customer group by town;
select * from orders where note like '%fox%' order by amount;
update orders set amount = amount * 1.1 where id % 3 = 0;
delete from orders where id % 5 = 0;
select upper(note), printf('%08.2f', amount) from orders where customer between 20 and 40;
with recursive fibonacci(a, b) as (select 0, 1 union all select b, a + b from fibonacci limit 50)
  select group_concat(a) from fibonacci;
