/* client.h -- a client of a daemon that may die at any moment. What was acknowledged it writes into its
 * ledger, and after the restart it looks for all of it. */
#ifndef GRADD_TESTS_TORTURE_CLIENT_H
#define GRADD_TESTS_TORTURE_CLIENT_H

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODELS = 3, DATASETS = 3, CHECKPOINTS = 4, STEPS = 400, JOB_STEPS = 9000 };

/* Of a thing whose request got no reply nobody knows, until one has looked. */
typedef enum presence { ABSENT, THERE, UNSURE } presence;

/** How an uninterrupted run goes. */
typedef struct reference {
    char *steps[STEPS + 1]; /* [i]: the reply to train_step i, without times */
    char *history;          /* of the job's model: step,loss,lr,grad_norm,accuracy */
    char *evaluations;      /* the same with what evaluations gave */
    char *state;            /* its state_dict */
    size_t state_size;
} reference;

typedef struct model_entry {
    presence presence;
    unsigned serial;     /* its name's and its key's */
    double lr, other_lr; /* it has one of the two */
} model_entry;

typedef struct dataset_entry {
    presence presence;     /* UNSURE: may also be absent, or what it was */
    uint64_t seed, before; /* of its contents; 0: none */
} dataset_entry;

typedef struct checkpoint_entry {
    presence presence;
    unsigned serial;
    int step;
    char sha256[65];
} checkpoint_entry;

/* A model brought back to a checkpoint. */
typedef struct restore_entry {
    presence presence;
    unsigned serial, checkpoint;
    int step;
} restore_entry;

typedef struct ledger {
    model_entry models[MODELS];
    dataset_entry datasets[DATASETS];
    /* a model that is trained by requests */
    unsigned trained; /* its serial number; 0: none yet */
    int steps;        /* that were acknowledged */
    bool step_unsure; /* the one after was sent */
    int saved;        /* step of the newest acknowledged checkpoint */
    checkpoint_entry checkpoints[CHECKPOINTS];
    restore_entry restore; /* the last one */
    bool has_notes;        /* a model that takes metrics */
    int notes;             /* that were acknowledged */
    bool note_unsure;
    /* a job; of the first client */
    unsigned job_serial; /* of its model; 0: none */
    int job;             /* 0: not acknowledged yet */
    int job_step;        /* that it was seen at */
    unsigned job_kills;  /* that it has lived through */
    unsigned pause;      /* serial number of its last pause and resume; 0: none */
    presence asked[2];   /* of the two */
    /* a job that is cancelled, of every other client */
    unsigned cancelled;    /* serial number of its model; 0: none */
    int cancelled_job;     /* 0: not acknowledged yet */
    bool cancel_known;     /* its cancellation was acknowledged */
    bool cancelled_unsure; /* its model was being deleted */
} ledger;

typedef struct client {
    int index, port;
    uint64_t random;
    unsigned serial;
    const reference *expected;
    ledger ledger;
    CURL *curl;
    /* the last reply */
    char *body;
    size_t size;
    bool replayed; /* it is the first one again */
    /* what it has done */
    unsigned done[16], jobs_ended, requests, most_job_kills;
    atomic_bool may_end; /* the daemon was told to: 503 is as good as no reply */
    bool verifies;       /* nobody kills the daemon now: no connection may be lost */
    bool only_finish;    /* no new jobs */
    char failure[1024];
} client;

/** What clients do: one request or two, and what must be true of all of them after a restart. */
typedef struct action {
    const char *name;
    int weight;
    bool (*act)(client *c); /* false: the connection was lost, or it has failed */
    bool (*verify)(client *c);
} action;

extern const action torture_actions[];
extern const size_t torture_action_count;

void client_init(client *c, int index, uint64_t seed, const reference *expected);
void client_release(client *c);
/** The next of its random numbers, below `below`. */
uint32_t client_random(client *c, uint32_t below);
/** A request. JSON is written with ' for ". @param key Idempotency-Key; NULL: none
 *  @return its status; 0: there was no reply, or not all of it */
int client_ask(client *c, const char *method, const char *path, const char *key, const char *json);
/** The same with any body. @param headers more of them; NULL ends them */
int client_send(client *c, const char *method, const char *path, const char *const *headers, const void *body,
                size_t size);
/** Note what is wrong; the first counts. @return false */
bool client_fail(client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Was this the status? 0, outside of verifying, is no failure. */
bool client_expect(client *c, int status, int expected, const char *what);

/** Was this the status? And, where the request was acknowledged before, the reply that was given then? */
bool client_expect_again(client *c, int status, int expected, bool known, const char *what);

/** Everything of the ledger is there and right. */
bool client_verify(client *c);
/** One action, chosen at random. */
bool client_act(client *c);

/** The run that nothing interrupts, in a daemon of its own. */
bool reference_run(client *c, reference *ret_reference);
void reference_release(reference *reference);
/** Upload what jobs train on, where it is not there. */
bool torture_prepare(client *c);
/** A job of the first client: whether it is over, and as it should be. */
bool torture_job_ended(client *c);

#endif
