"""Every Redis key, on one page.

All keys carry the hash tag {q}, so that the queue lives in one cluster slot and a script may touch all of it. The
scripts in lua/ build them from the same prefix: keep lua/prelude.lua equal to this table.

| key              | type    | holds                                                       | lives                |
|------------------|---------|-------------------------------------------------------------|----------------------|
| job:<id>         | hash    | state tenant lane spec seq attempts crashes token worker    | until deleted        |
|                  |         | progress result error submitted_ms started_ms finished_ms   |                      |
| queue:<lane>     | zset    | queued job id -> seq (first come, first served)             | while jobs wait      |
| lanes            | set     | lanes that ever had a job; a lane is a model                | always               |
| lease            | zset    | job id in progress -> server ms when its lease ends         | while jobs run       |
| delayed          | zset    | job id waiting for a retry -> server ms when it is due      | while jobs wait      |
| dead             | zset    | job id given up on -> server ms                             | until purged         |
| seq              | counter | order of submission                                         | always               |
| tenant:<t>:jobs  | zset    | every job id of a tenant -> seq                             | always               |
| claim:<token>    | list    | job ids that a claim returned, so that it can be asked again | one lease           |
| worker:<id>      | string  | WorkerInfo JSON                                             | three heartbeats     |
| workers          | set     | ids of workers, pruned when read                            | always               |
| wake             | channel | a lane's name, published when work arrives in it            |                      |
"""

PREFIX = "darkroom:{q}:"
WAKE_CHANNEL = PREFIX + "wake"
