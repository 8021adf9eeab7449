-- How this customer spends: transactions and their mean amount over the last 1, 7 and 30 days, this one included.
select
    CUSTOMER_ID,
    TX_DATETIME as event_timestamp,
    count(*)        over d1  as CUSTOMER_ID_NB_TX_1DAY_WINDOW,
    avg(TX_AMOUNT)  over d1  as CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW,
    count(*)        over d7  as CUSTOMER_ID_NB_TX_7DAY_WINDOW,
    avg(TX_AMOUNT)  over d7  as CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW,
    count(*)        over d30 as CUSTOMER_ID_NB_TX_30DAY_WINDOW,
    avg(TX_AMOUNT)  over d30 as CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW
from history
window
    d1  as (partition by CUSTOMER_ID order by epoch_us(TX_DATETIME) range between 86399999999 preceding and current row),
    d7  as (partition by CUSTOMER_ID order by epoch_us(TX_DATETIME) range between 604799999999 preceding and current row),
    d30 as (partition by CUSTOMER_ID order by epoch_us(TX_DATETIME) range between 2591999999999 preceding and current row)
