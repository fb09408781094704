/* server.h -- everything one daemon is made of. */
#ifndef GRADD_SERVER_SERVER_H
#define GRADD_SERVER_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "auth.h"
#include "buffer.h"
#include "config.h"
#include "datasets.h"
#include "executor.h"
#include "log.h"
#include "metrics.h"
#include "models.h"
#include "proto/gradd_proto.h"
#include "spool.h"
#include "store.h"
#include "version.h"

typedef struct gs_loop gs_loop;
typedef struct gs_http gs_http;
typedef struct gs_idempotency gs_idempotency;
typedef struct gs_connection gs_connection;
typedef struct gs_jobs gs_jobs;

typedef struct gs_server {
    gs_config config;
    gs_log log;
    gs_auth *auth; /* NULL: no tokens, everyone may do everything */
    gd_engine *engine;
    gs_executor executor;
    gs_queue common; /* of requests that work, but on no model */
    gs_models models;
    gs_store *store;
    gs_idempotency *idempotency;
    gs_datasets datasets;
    gs_jobs *jobs;
    gs_spools spools; /* uploads on their way */
    gs_budget bodies; /* request bodies on their way */
    gs_metrics metrics;
    gs_http *http;
    gs_loop *loop;
    char *version; /* the reply of /v1/version, once it was asked for; loop thread */
    char listen_host[256];
    int listen_port;             /* the bound one */
    bool listens_anywhere;       /* on 0.0.0.0 or [::] */
    bool draining;               /* loop thread */
    atomic_bool storing_metrics; /* some are on their way to the store */
    const gs_connection
        *worked_for;        /* that the last request for work came by, if it still is there; loop thread */
    uint64_t worked_in_row; /* requests for work that came by it in a row before; loop thread */
    int64_t started_ms;     /* since 1970 */
} gs_server;

#endif
