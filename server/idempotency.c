/* idempotency.c -- a hash table of keys, with a list by age and, of keys that are not durable yet, lists by
 * model. A request pays for its key with two short holds of one lock, and no fsync. */
#include "idempotency.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#include "fingerprint.h"
#include "request.h"

enum {
    LIFE_MS = 24 * 60 * 60 * 1000,
    MODELS = 256, /* lists of keys by model */
    FINGERPRINT = 16,
    REST = 1 << 20 /* bytes of a body that are gone through before a client that has its reply asks again */
};

struct gs_fingerprint {
    XXH3_state_t state;
    size_t taken; /* bytes of the body */
};

typedef enum key_state {
    RUNNING, /* its request has not ended */
    KEPT,    /* the reply is there */
    DROPPED  /* it ended, and the reply is not there: too large, or no room */
} key_state;

struct gs_key {
    LIST_ENTRY(gs_key) chain;   /* of its hash */
    TAILQ_ENTRY(gs_key) age;    /* by time of coming */
    LIST_ENTRY(gs_key) waiting; /* for a checkpoint of its model */
    uint64_t hash;
    int64_t created_ms;
    key_state state;
    bool waits;    /* it is in a list of `waiting` */
    bool saving;   /* it is being written: to be left alone */
    bool unwanted; /* to be forgotten when that is over */
    uint64_t model, version;
    gs_reply reply; /* its body is the key's own */
    /* Whose payload the fingerprint is still to be taken of, at the latest when it ends: nobody waits for its
     * reply any more then, and another request with the key is rare. NULL: it has been taken. */
    const gs_request *request;
    unsigned char fingerprint[FINGERPRINT];
    char text[]; /* the key */
};

LIST_HEAD(key_list, gs_key);

struct gs_idempotency {
    pthread_mutex_t lock; /* guards all below */
    size_t limit, count;
    size_t memory_limit, memory;
    uint64_t seed; /* hash collisions must not be foreseeable */
    size_t mask;
    struct key_list *chains;
    TAILQ_HEAD(key_queue, gs_key) by_age;
    struct key_list waiting[MODELS];
};

gs_idempotency *gs_idempotency_new(size_t keys, size_t memory) {
    gs_idempotency *table = calloc(1, sizeof *table);
    size_t chains = 16;
    while (chains < keys) {
        chains *= 2;
    }
    if (!table || !(table->chains = calloc(chains, sizeof *table->chains))) {
        free(table);
        return NULL;
    }
    table->limit = keys;
    table->memory_limit = memory;
    table->mask = chains - 1;
    TAILQ_INIT(&table->by_age);
    if (getrandom(&table->seed, sizeof table->seed, 0) != sizeof table->seed) {
        table->seed = (uint64_t)gs_time_ms();
    }
    pthread_mutex_init(&table->lock, NULL);
    return table;
}

/* ---- keys; all under the lock ------------------------------------------------------------------------ */

static struct key_list *chain_of(gs_idempotency *table, uint64_t hash) {
    return &table->chains[hash & table->mask];
}

static uint64_t hash_of(const gs_idempotency *table, const char *text) {
    return XXH3_64bits_withSeed(text, strlen(text), table->seed);
}

static gs_key *find(gs_idempotency *table, const char *text, uint64_t hash) {
    gs_key *key;
    LIST_FOREACH(key, chain_of(table, hash), chain) {
        if (key->hash == hash && !strcmp(key->text, text)) {
            return key;
        }
    }
    return NULL;
}

static void end_waiting(gs_key *key) {
    if (key->waits) {
        LIST_REMOVE(key, waiting);
        key->waits = false;
    }
}

static void drop_reply(gs_idempotency *table, gs_key *key) {
    table->memory -= key->reply.size;
    free(key->reply.body);
    key->reply.body = NULL;
    key->reply.size = 0;
    key->state = DROPPED;
}

static void forget(gs_idempotency *table, gs_key *key) {
    drop_reply(table, key);
    end_waiting(key);
    LIST_REMOVE(key, chain);
    TAILQ_REMOVE(&table->by_age, key, age);
    table->count--;
    free(key);
}

static bool can_go(const gs_key *key) {
    return key->state != RUNNING && !key->saving;
}

/* Forget what is older than a day, and the oldest beyond the limit. */
static void expire(gs_idempotency *table, int64_t now_ms) {
    gs_key *key = TAILQ_FIRST(&table->by_age), *next;
    for (; key && (table->count > table->limit || now_ms - key->created_ms > LIFE_MS); key = next) {
        next = TAILQ_NEXT(key, age);
        if (can_go(key)) {
            forget(table, key);
        }
    }
}

/* Drop replies until there is room: the oldest. */
static void make_room(gs_idempotency *table, size_t size) {
    gs_key *key;
    TAILQ_FOREACH(key, &table->by_age, age) {
        if (table->memory + size <= table->memory_limit) {
            break;
        }
        if (key->state == KEPT && !key->saving) {
            drop_reply(table, key);
        }
    }
}

/* A new one, without fingerprint. NULL: no memory. */
static gs_key *add(gs_idempotency *table, const char *text, uint64_t hash, int64_t now_ms) {
    size_t size = strlen(text) + 1;
    gs_key *key = calloc(1, sizeof *key + size);
    if (!key) {
        return NULL;
    }
    memcpy(key->text, text, size);
    key->hash = hash;
    key->created_ms = now_ms;
    LIST_INSERT_HEAD(chain_of(table, hash), key, chain);
    TAILQ_INSERT_TAIL(&table->by_age, key, age);
    table->count++;
    expire(table, now_ms);
    return key;
}

/* Keep a copy of a reply, or only that there was one. */
static void keep_reply(gs_idempotency *table, gs_key *key, const gs_reply *reply) {
    char *copy = NULL;
    if (reply->size <= GS_MAX_KEPT_REPLY && reply->size <= table->memory_limit) {
        make_room(table, reply->size);
        copy = malloc(reply->size + 1);
    }
    key->reply = *reply;
    key->reply.body = copy;
    key->reply.owned = key->reply.close = false;
    key->reply.size = copy ? reply->size : 0;
    key->state = copy ? KEPT : DROPPED;
    if (copy && reply->size) {
        memcpy(copy, reply->body, reply->size);
    }
    table->memory += key->reply.size;
}

void gs_idempotency_free(gs_idempotency *table) {
    if (!table) {
        return;
    }
    while (!TAILQ_EMPTY(&table->by_age)) {
        forget(table, TAILQ_FIRST(&table->by_age));
    }
    free(table->chains);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* ---- a request's way --------------------------------------------------------------------------------- */

static void begin_fingerprint(const gs_request *request, gs_fingerprint *ret_fingerprint) {
    XXH3_state_t *state = &ret_fingerprint->state;
    XXH3_INITSTATE(state);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, request->method, strlen(request->method) + 1);
    XXH3_128bits_update(state, request->target, strlen(request->target) + 1);
    ret_fingerprint->taken = 0;
}

void gs_idempotency_receive(gs_request *request, const char *bytes, size_t size) {
    const int64_t now = request->headers.length - REST;
    if (!request->body->size && *request->key && now > 0) {
        request->fingerprint = aligned_alloc(_Alignof(gs_fingerprint), sizeof *request->fingerprint);
        if (request->fingerprint) { /* else it is taken of the whole body */
            begin_fingerprint(request, request->fingerprint);
        }
    }
    if (request->fingerprint && (int64_t)(request->body->size + size) <= now) {
        gs_fingerprint_update(&request->fingerprint->state, bytes, size);
        request->fingerprint->taken += size;
    }
}

/* What tells one payload from another. */
static void take_fingerprint(const gs_request *request, unsigned char fingerprint[FINGERPRINT]) {
    gs_fingerprint f;
    XXH128_canonical_t canonical;
    if (request->fingerprint) {
        f = *request->fingerprint;
    } else {
        begin_fingerprint(request, &f);
    }
    if (request->body) {
        gs_fingerprint_update(&f.state, request->body->data + f.taken, request->body->size - f.taken);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&f.state));
    memcpy(fingerprint, canonical.digest, FINGERPRINT);
}

/* Under the lock. */
static void complete(gs_key *key) {
    if (key->request) {
        take_fingerprint(key->request, key->fingerprint);
        key->request = NULL;
    }
}

/* Under the lock: a second request with this key. */
static void answer_again(gs_request *request, gs_key *key) {
    gp_error *error = &request->error;
    unsigned char fingerprint[FINGERPRINT];
    complete(key);
    take_fingerprint(request, fingerprint);
    if (memcmp(key->fingerprint, fingerprint, FINGERPRINT) != 0) {
        gp_fail(error, GP_IDEMPOTENCY_KEY_REUSED, "",
                "another request, with another path or body, had this Idempotency-Key; take a new one");
        return;
    }
    if (key->state == RUNNING) {
        gp_fail(error, GP_IDEMPOTENCY_KEY_IN_USE, "",
                "the first request with this Idempotency-Key has not ended; try again");
        return;
    }
    char *copy = key->state == KEPT ? malloc(key->reply.size + 1) : NULL;
    if (key->state == KEPT && !copy) {
        gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for the reply");
        return;
    }
    if (!copy) {
        gp_fail(error, GP_IDEMPOTENCY_REPLY_NOT_KEPT, "",
                "the first request with this Idempotency-Key was done, with status %d; its reply was too "
                "large to "
                "be kept, so read what it changed",
                key->reply.status);
        return;
    }
    if (key->reply.size) {
        memcpy(copy, key->reply.body, key->reply.size);
    }
    request->reply = key->reply;
    request->reply.body = copy;
    request->reply.owned = request->reply.replayed = true;
}

bool gs_idempotency_claim(gs_request *request) {
    gs_idempotency *table = request->server->idempotency;
    if (!*request->key) {
        return true;
    }
    uint64_t hash = hash_of(table, request->key);
    int64_t now = gs_time_ms();
    pthread_mutex_lock(&table->lock);
    expire(table, now);
    gs_key *key = find(table, request->key, hash);
    if (key) {
        answer_again(request, key);
    } else if ((key = add(table, request->key, hash, now))) {
        key->request = request;
        request->claim = key;
    } else {
        gp_fail(&request->error, GP_OUT_OF_MEMORY, "", "out of memory for the Idempotency-Key");
    }
    pthread_mutex_unlock(&table->lock);
    return request->claim;
}

void gs_idempotency_keep(gs_request *request) {
    gs_idempotency *table = request->server->idempotency;
    gs_key *key = request->claim;
    if (!key) {
        return;
    }
    request->claim = NULL;
    /* what a checkpoint has no part of does not wait for one */
    bool on_model = request->model && !request->durable;
    uint64_t version = on_model ? gs_hosted_summary(request->model).version : 0;
    pthread_mutex_lock(&table->lock);
    keep_reply(table, key, &request->reply);
    key->model = on_model ? request->model->id : 0;
    key->version = version;
    key->waits = on_model && !(request->route->flags & GS_TRANSIENT);
    if (key->waits) {
        LIST_INSERT_HEAD(&table->waiting[key->model % MODELS], key, waiting);
    }
    pthread_mutex_unlock(&table->lock);
}

void gs_idempotency_drop(gs_request *request) {
    gs_idempotency *table = request->server->idempotency;
    if (request->claim) {
        pthread_mutex_lock(&table->lock);
        forget(table, request->claim);
        pthread_mutex_unlock(&table->lock);
        request->claim = NULL;
    }
}

void gs_idempotency_end(const gs_request *request) {
    gs_idempotency *table = request->server->idempotency;
    if (!*request->key) {
        return;
    }
    pthread_mutex_lock(&table->lock);
    gs_key *key = find(table, request->key, hash_of(table, request->key));
    if (key && key->request == request) {
        complete(key);
    }
    pthread_mutex_unlock(&table->lock);
}

/* ---- the store ----------------------------------------------------------------------------------------- */

static int insert(gs_store *store, const gs_key *key, const gs_reply *reply, bool kept, gp_error *error) {
    return gs_sql(
        store, error,
        "INSERT OR REPLACE INTO idempotency(key, fingerprint, status, media, etag, location, body, model, "
        "version, created_ms) VALUES(?, ?, ?, ?, ?, ?, ?, nullif(?, 0), nullif(?, 0), ?)",
        "sbisssbiii", key->text, key->fingerprint, (size_t)FINGERPRINT, (int64_t)reply->status,
        gs_media_name(reply->media), reply->etag, reply->location,
        !kept         ? NULL
        : reply->size ? reply->body
                      : "",
        kept ? reply->size : 0, (int64_t)key->model, (int64_t)key->version, key->created_ms);
}

/* What the table would not remember, the store need not. */
static int trim(gs_store *store, size_t limit, gp_error *error) {
    return gs_sql(store, error, "DELETE FROM idempotency WHERE created_ms < ?", "i",
                  gs_time_ms() - LIFE_MS) ||
                   gs_sql(store, error,
                          "DELETE FROM idempotency WHERE id <= (SELECT max(id) FROM idempotency) - ?", "i",
                          (int64_t)limit)
               ? -1
               : 0;
}

int gs_idempotency_write(gs_store *store, gs_request *request, gp_error *error) {
    gs_idempotency *table = request->server->idempotency;
    gs_key *key = request->claim; /* nobody else changes it while its request runs, but for the fingerprint */
    const gs_reply *reply = &request->reply;
    if (key && request->of_state) {
        key->model = request->model->id;
        key->version = gs_hosted_summary(request->model).version;
    }
    if (!key) {
        return 0;
    }
    pthread_mutex_lock(&table->lock);
    complete(key);
    pthread_mutex_unlock(&table->lock);
    return insert(store, key, reply, reply->size <= GS_MAX_KEPT_REPLY, error) ||
                   trim(store, table->limit, error)
               ? -1
               : 0;
}

/* Under the lock: mark the keys to be saved, and list them if `ret_keys` has room for all. @return how many
 */
static size_t mark(gs_idempotency *table, uint64_t model, uint64_t version, gs_key **ret_keys) {
    size_t count = 0;
    gs_key *key;
    LIST_FOREACH(key, &table->waiting[model % MODELS], waiting) {
        if (key->model == model && key->version <= version) {
            if (ret_keys) {
                complete(key);
                key->saving = true;
                ret_keys[count] = key;
            }
            count++;
        }
    }
    return count;
}

int gs_idempotency_save(gs_idempotency *table, gs_store *store, uint64_t model, uint64_t version,
                        gp_error *error) {
    pthread_mutex_lock(&table->lock);
    size_t count = mark(table, model, version, NULL);
    gs_key **keys = count ? malloc(count * sizeof *keys) : NULL;
    if (keys) {
        mark(table, model, version, keys);
    }
    pthread_mutex_unlock(&table->lock);
    if (!count) {
        return 0;
    }
    if (!keys) {
        return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for %zu idempotency keys", count);
    }
    int result = 0;
    for (size_t i = count; i-- > 0 && !result;) { /* the oldest first */
        result = insert(store, keys[i], &keys[i]->reply, keys[i]->state == KEPT, error);
    }
    free(keys);
    return result || trim(store, table->limit, error) ? -1 : 0;
}

void gs_idempotency_settle(gs_idempotency *table, uint64_t model, uint64_t version, bool committed) {
    gs_key *key, *next;
    pthread_mutex_lock(&table->lock);
    for (key = LIST_FIRST(&table->waiting[model % MODELS]); key; key = next) {
        next = LIST_NEXT(key, waiting);
        if (!key->saving || key->model != model || key->version > version) {
            continue;
        }
        key->saving = false;
        if (key->unwanted) {
            forget(table, key);
        } else if (committed) {
            end_waiting(key);
        }
    }
    pthread_mutex_unlock(&table->lock);
}

void gs_idempotency_forget(gs_idempotency *table, uint64_t model, uint64_t version) {
    gs_key *key, *next;
    pthread_mutex_lock(&table->lock);
    for (key = TAILQ_FIRST(&table->by_age); key; key = next) {
        next = TAILQ_NEXT(key, age);
        if (key->model != model || (version && key->version <= version)) {
            continue;
        }
        key->unwanted = true;
        if (can_go(key)) {
            forget(table, key);
        }
    }
    pthread_mutex_unlock(&table->lock);
}

int gs_idempotency_cut(gs_store *store, uint64_t model, uint64_t version, gp_error *error) {
    return gs_sql(store, error, "DELETE FROM idempotency WHERE model = ? AND version > ?", "ii",
                  (int64_t)model, (int64_t)version);
}

/* ---- at start ------------------------------------------------------------------------------------------ */

static gs_media media_of(const char *name) {
    gs_media media = GS_MEDIA_NONE;
    while (media < GS_MEDIA_COUNT && strcmp(gs_media_name(media), name) != 0) {
        media++;
    }
    return media;
}

/* One row. @return 0; -1: no memory */
static int load_key(gs_idempotency *table, sqlite3_stmt *row) {
    const char *text = (const char *)sqlite3_column_text(row, 0);
    const void *fingerprint = sqlite3_column_blob(row, 1);
    if (!text || !fingerprint || sqlite3_column_bytes(row, 1) != FINGERPRINT) {
        return 0; /* not written by us */
    }
    gs_reply reply = {.status = sqlite3_column_int(row, 2),
                      .media = media_of((const char *)sqlite3_column_text(row, 3)),
                      .body = (char *)(uintptr_t)sqlite3_column_blob(row, 6),
                      .size = (size_t)sqlite3_column_bytes(row, 6)};
    snprintf(reply.etag, sizeof reply.etag, "%s", sqlite3_column_text(row, 4));
    snprintf(reply.location, sizeof reply.location, "%s", sqlite3_column_text(row, 5));
    bool kept = sqlite3_column_type(row, 6) != SQLITE_NULL && reply.media != GS_MEDIA_COUNT;
    gs_key *key = add(table, text, hash_of(table, text), sqlite3_column_int64(row, 9));
    if (!key) {
        return -1;
    }
    memcpy(key->fingerprint, fingerprint, FINGERPRINT);
    keep_reply(table, key, &reply);
    if (!kept) {
        drop_reply(table, key);
    }
    key->model = (uint64_t)sqlite3_column_int64(row, 7);
    key->version = (uint64_t)sqlite3_column_int64(row, 8);
    return 0;
}

static int load(gs_store *store, void *argument, gp_error *error) {
    gs_idempotency *table = argument;
    if (trim(store, table->limit, error)) {
        return -1;
    }
    sqlite3_stmt *row =
        gs_sql_query(store, error,
                     "SELECT key, fingerprint, status, media, etag, location, body, model, version, "
                     "created_ms FROM idempotency ORDER BY id",
                     "");
    int more = row ? 1 : -1;
    while (more > 0 && (more = gs_sql_row(store, row, error)) > 0) {
        if (load_key(table, row)) {
            return gp_fail(error, GP_OUT_OF_MEMORY, "", "out of memory for idempotency keys");
        }
    }
    return more;
}

int gs_idempotency_load(gs_idempotency *table, gs_store *store, gp_error *error) {
    return gs_store_do(store, load, table, error);
}
