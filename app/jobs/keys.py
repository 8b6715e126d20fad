"""Every Redis key of the queue, on one page.

Under the same prefix there are others: of keys and of what signs addresses (app/access), of webhooks
(app/webhooks/outbox.py), of the models that A1111's clients chose (app/api/chosen_models.py), and of rate limits, by
the library `limits`.

All keys carry the hash tag {q}, so that the queue lives in one cluster slot and a script may touch all of it. The
scripts in lua/ build them from the same prefix: keep lua/prelude.lua equal to this table.

| key                 | type    | holds                                                         | lives                |
|---------------------|---------|---------------------------------------------------------------|----------------------|
| job:<id>            | hash    | state tenant lane priority cost_ms spec seq attempts crashes  | until its record has |
|                     |         | token worker progress steps lost_steps result error idem      | had its time, or it  |
|                     |         | kept_for kept_until_ms and times: submitted_ms started_ms     | is purged            |
|                     |         | finished_ms expired_ms asked_ms; lost_token                   |                      |
| queue:<lane>:<flow> | zset    | queued job id -> seq; a flow is RANK:TENANT, the rank being   | while jobs wait      |
|                     |         | 1 high, 2 normal, 3 low                                       |                      |
| ready:<lane>        | zset    | RANK:SEQ:TENANT of each flow with queued jobs, SEQ being its  | while jobs wait      |
|                     |         | first job's -> virtual time of its next start                 |                      |
| front:<lane>        | zset    | queued job id, taken before -> seq: they go first             | while jobs wait      |
| suspects:<lane>     | zset    | queued job id whose worker died -> seq: they run alone        | while jobs wait      |
| clocks              | hash    | lane -> its virtual time, by which queueing is fair           | always               |
| debts:<lane>        | zset    | flow without queued jobs -> virtual time it is ahead to       | until then           |
| weights             | hash    | tenant -> its share, where that is not 1                      | always               |
| lanes               | set     | lanes that ever had a job; a lane is a model                  | always               |
| lane:<lane>         | hash    | queued, high, normal, low: queued jobs, by priority too;      | always               |
|                     |         | work_ms: their cost; held: jobs in progress;                  |                      |
|                     |         | pace_claims, pace_ms, last_ms: how fast they go;              |                      |
|                     |         | promised_ms, late_ms: the last places promised to who was     |                      |
|                     |         | refused, and to who came for one in vain                      |                      |
| tenant:<t>          | hash    | open, work_ms: jobs that are not over, their cost; as a lane  | always               |
|                     |         | promised_ms, late_ms                                          |                      |
| totals              | hash    | submitted, and each end -> jobs ever                          | always               |
| lease               | zset    | job id in progress -> server ms when its lease ends           | while jobs run       |
| delayed             | zset    | job id waiting for a retry -> server ms when it is due        | while jobs wait      |
| cancel_after        | zset    | job id that is not over -> server ms when it is canceled      | while jobs are open  |
| dead                | zset    | job id given up on -> server ms                               | until purged         |
| ended               | zset    | job id that is over, dead ones aside -> server ms             | until it expires     |
| expired             | zset    | job id whose pictures are gone -> server ms                   | until forgotten      |
| seq                 | counter | order of submission                                           | always               |
| jobs:<t>            | zset    | every job id of a tenant -> seq                               | as the jobs          |
| idem:<t>:<key>      | hash    | id of the job, body: hash of the request                      | a day, or as the job |
| promised:lane:<lane>| zset    | TENANT:KEY of who was refused -> server ms of their place     | an hour              |
| promised:tenant:<t> | zset    | the same where the tenant had too many jobs                   | an hour              |
| claim:<token>       | list    | 'known', and the ids that a claim gave, to be asked for again | one lease            |
| worker:<id>         | string  | WorkerInfo JSON                                               | three heartbeats     |
| workers             | set     | ids of workers, pruned when read                              | always               |
| round:<worker>      | hash    | taken_ms: it took a suspect; rest_until_ms: it takes others   | an hour              |
| id                  | string  | tells this queue from others: its store has it, too           | always               |
| ticked              | string  | server ms of the last tick                                    | always               |
| pardon              | string  | server ms until which leases end unblamed after an outage     | always               |
| turn:<what>         | string  | there while somebody has just done it: expire, sweep          | as long as that      |
| wake                | channel | a lane's name, published when work arrives in it              |                      |
| changed             | channel | a job's id, published when its record changed                 |                      |
"""

PREFIX = "darkroom:{q}:"
WAKE_CHANNEL = PREFIX + "wake"
CHANGED_CHANNEL = PREFIX + "changed"
