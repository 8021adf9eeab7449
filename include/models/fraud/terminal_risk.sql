-- How risky this terminal was, as far as it is known: labels arrive after 7 days, so every window ends 7 days ago.
-- A label that never arrived counts as unknown, not as honest: avg() leaves it out.
select
    TERMINAL_ID,
    TX_DATETIME as event_timestamp,
    count(*)                    over d1  as TERMINAL_ID_NB_TX_1DAY_WINDOW,
    coalesce(avg(TX_FRAUD) over d1, 0)   as TERMINAL_ID_RISK_1DAY_WINDOW,
    count(*)                    over d7  as TERMINAL_ID_NB_TX_7DAY_WINDOW,
    coalesce(avg(TX_FRAUD) over d7, 0)   as TERMINAL_ID_RISK_7DAY_WINDOW,
    count(*)                    over d30 as TERMINAL_ID_NB_TX_30DAY_WINDOW,
    coalesce(avg(TX_FRAUD) over d30, 0)  as TERMINAL_ID_RISK_30DAY_WINDOW
from history
window
    d1  as (partition by TERMINAL_ID order by epoch_us(TX_DATETIME) range between 691199999999 preceding and 604800000000 preceding),
    d7  as (partition by TERMINAL_ID order by epoch_us(TX_DATETIME) range between 1209599999999 preceding and 604800000000 preceding),
    d30 as (partition by TERMINAL_ID order by epoch_us(TX_DATETIME) range between 3196799999999 preceding and 604800000000 preceding)
