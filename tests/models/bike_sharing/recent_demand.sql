-- Demand a day ago, a week ago and over a week, as far as it is counted: the newest count is a day old.
-- There is no entity: all hours are one series.
select
    timestamp as event_timestamp,
    max(cnt) over (order by epoch(timestamp)::bigint range between 86400 preceding and 86400 preceding)   as cnt_1d_ago,
    max(cnt) over (order by epoch(timestamp)::bigint range between 604800 preceding and 604800 preceding) as cnt_7d_ago,
    avg(cnt) over (order by epoch(timestamp)::bigint range between 691199 preceding and 86400 preceding)  as cnt_mean_7d
from history
