/* kill_test.c -- the daemon is killed, or told to end, at random moments, again and again, while clients
 * make, change and delete everything there is; after each restart all that was acknowledged is there, and
 * right.
 *
 *     kill_test [--rounds N] [--seed N] */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "tests/support.h"

#include "tests/daemon.h"

enum { CLIENTS = 4, MAX_ROUNDS = 100000 };

/* One client on its thread, for one life of the daemon. */
typedef struct worker {
    client client;
    pthread_t thread;
    _Atomic bool verified; /* or failed */
} worker;

typedef struct torture {
    test_folder data;
    test_daemon daemon;
    worker workers[CLIENTS];
    reference expected;
    client dice;        /* random numbers of the test itself */
    double *restarts;   /* ms */
    double longest_end; /* ms */
    unsigned rounds, early;
    bool gently; /* SIGTERM */
} torture;

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void *work(void *argument) {
    worker *w = argument;
    const bool fine = client_verify(&w->client);
    w->verified = true;
    while (fine && client_act(&w->client)) {
    }
    return NULL;
}

static void check_failures(const torture *t) {
    for (size_t i = 0; i < CLIENTS; i++) {
        if (*t->workers[i].client.failure) {
            fail_msg("%s (data directory: %s)", t->workers[i].client.failure, t->data.path);
        }
    }
}

static void start(torture *t) {
    const double began = now_ms();
    test_daemon_start(&t->daemon, (const char *const[]){"--data-dir", t->data.path, "--autosave", "0.3",
                                                        "--log-level", "warning", NULL});
    t->restarts[t->rounds] = now_ms() - began;
}

/* A daemon that is killed before it has begun, or while it brings back what there was. */
static void start_in_vain(torture *t) {
    char program[512];
    const char *const arguments[] = {
        test_program("gradd", program), "--listen", "127.0.0.1:0", "--data-dir", t->data.path, NULL};
    test_folder folder;
    test_folder_make(&folder);
    pid_t pid = test_start(arguments, (const char *const[]){"GRADD_EPHEMERAL=false", NULL}, &folder);
    pause_ms(client_random(&t->dice, 60));
    kill(pid, SIGKILL);
    assert_int_equal(test_wait(pid), 128 + SIGKILL);
    test_folder_remove(&folder);
    t->early++;
}

/* Under the load of all clients. After SIGTERM it must end by itself with exit status 0. */
static void end(torture *t) {
    if (!t->gently) {
        test_daemon_kill(&t->daemon);
        return;
    }
    const double began = now_ms();
    for (size_t i = 0; i < CLIENTS; i++) {
        t->workers[i].client.may_end = true;
    }
    test_daemon_stop(&t->daemon);
    const double took = now_ms() - began;
    t->longest_end = took > t->longest_end ? took : t->longest_end;
}

/* The daemon's next life: look for everything, go on, die. */
static void one_round(torture *t) {
    start(t);
    for (size_t i = 0; i < CLIENTS; i++) {
        worker *w = &t->workers[i];
        w->client.port = t->daemon.port;
        w->client.may_end = false;
        w->verified = false;
        assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        while (!t->workers[i].verified) {
            pause_ms(1);
        }
    }
    pause_ms(20 + (long)client_random(&t->dice, 380));
    end(t);
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(t->workers[i].thread, NULL);
    }
    check_failures(t);
    if (!t->gently && !client_random(&t->dice, 5)) {
        start_in_vain(t);
    }
    t->rounds++;
}

/* After the last one: everything is there, and the job comes to its end. */
static void last_round(torture *t) {
    start(t);
    for (size_t i = 0; i < CLIENTS; i++) {
        client *c = &t->workers[i].client;
        c->port = t->daemon.port;
        c->may_end = false;
        client_verify(c);
        check_failures(t);
    }
    client *c = &t->workers[0].client;
    c->verifies = true;
    while (!torture_job_ended(c)) {
        check_failures(t);
        pause_ms(5);
    }
    test_daemon_stop(&t->daemon);
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(torture *t) {
    const client *first = &t->workers[0].client;
    unsigned requests = 0;
    qsort(t->restarts, t->rounds + 1, sizeof *t->restarts, compare);
    for (size_t i = 0; i < torture_action_count; i++) {
        unsigned sum = 0;
        for (size_t j = 0; j < CLIENTS; j++) {
            sum += t->workers[j].client.done[i];
        }
        print_message("  %-18s %6u\n", torture_actions[i].name, sum);
    }
    for (size_t j = 0; j < CLIENTS; j++) {
        requests += t->workers[j].client.requests;
    }
    print_message(
        "%u %s (and %u kills while it started), %u requests; restarts: median %.0f ms, longest %.0f ms; "
        "%u jobs ended, one after %u of them\n",
        t->rounds, t->gently ? "ends by SIGTERM" : "kills", t->early, requests, t->restarts[t->rounds / 2],
        t->restarts[t->rounds], first->jobs_ended, first->most_job_kills);
    if (t->gently) {
        print_message("the longest end took %.0f ms\n", t->longest_end);
    }
}

static unsigned option_rounds = 10, option_seed;

static void make_reference(reference *expected) {
    test_daemon daemon;
    client c;
    test_daemon_start(&daemon, NULL);
    client_init(&c, 0, 1, NULL);
    c.port = daemon.port;
    c.verifies = true;
    if (!reference_run(&c, expected)) {
        fail_msg("%s", c.failure);
    }
    client_release(&c);
    test_daemon_stop(&daemon);
}

static void run(bool gently) {
    torture t = {.gently = gently};
    make_reference(&t.expected);
    t.restarts = calloc(option_rounds + 1, sizeof *t.restarts);
    assert_non_null(t.restarts);
    client_init(&t.dice, CLIENTS, option_seed, NULL);
    test_folder_make(&t.data);
    for (int i = 0; i < CLIENTS; i++) {
        client_init(&t.workers[i].client, i, option_seed, &t.expected);
    }
    start(&t);
    t.workers[0].client.port = t.daemon.port;
    assert_true(torture_prepare(&t.workers[0].client));
    test_daemon_kill(&t.daemon);
    while (t.rounds < option_rounds) {
        one_round(&t);
    }
    last_round(&t);
    report(&t);
    for (int i = 0; i < CLIENTS; i++) {
        client_release(&t.workers[i].client);
    }
    client_release(&t.dice);
    reference_release(&t.expected);
    free(t.restarts);
    test_folder_remove(&t.data);
}

static void nothing_acknowledged_is_lost_to_a_kill(void **state) {
    (void)state;
    run(false);
}

static void nothing_acknowledged_is_lost_at_the_end(void **state) {
    (void)state;
    run(true);
}

int main(int argc, char **argv) {
    option_seed = (unsigned)time(NULL);
    for (int i = 1; i + 1 < argc; i += 2) {
        unsigned value = (unsigned)strtoul(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--rounds") && value && value <= MAX_ROUNDS) {
            option_rounds = value;
        } else if (!strcmp(argv[i], "--seed")) {
            option_seed = value;
        } else {
            fprintf(stderr, "usage: kill_test [--rounds N] [--seed N]\n");
            return 2;
        }
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    printf("kill_test --rounds %u --seed %u\n", option_rounds, option_seed);
    fflush(stdout);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_acknowledged_is_lost_to_a_kill),
        cmocka_unit_test(nothing_acknowledged_is_lost_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
