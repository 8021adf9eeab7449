-- Demand a day ago, a week ago and over a week, as far as it is counted: the newest count is a day old.
-- There is no entity: all hours are one series.
select
    timestamp as event_timestamp,
    max(cnt) over (order by epoch_us(timestamp) range between 86400000000 preceding and 86400000000 preceding)   as cnt_1d_ago,
    max(cnt) over (order by epoch_us(timestamp) range between 604800000000 preceding and 604800000000 preceding) as cnt_7d_ago,
    avg(cnt) over (order by epoch_us(timestamp) range between 691199999999 preceding and 86400000000 preceding)  as cnt_mean_7d
from history
