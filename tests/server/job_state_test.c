/* job_state_test.c -- what the store says of a job whose state is changing in two places at once: a client
 * asks for something, and the job comes to a pause or to its end. */
#include "server/job.h"
#include "tests/support.h"

#define NONE GS_JOB_STATE_COUNT

static const struct {
    gs_job_state state, asked, wanted, written;
} cases[] = {
    {GS_JOB_RUNNING, NONE, NONE, GS_JOB_RUNNING},
    {GS_JOB_RUNNING, GS_JOB_PAUSING, NONE, GS_JOB_PAUSING},
    {GS_JOB_PAUSING, NONE, GS_JOB_PAUSED, GS_JOB_PAUSED},
    /* A resume or a cancel that comes while the pause is written, in the same commit or just before: */
    {GS_JOB_PAUSING, GS_JOB_RUNNING, GS_JOB_PAUSED, GS_JOB_RUNNING},
    {GS_JOB_PAUSING, GS_JOB_CANCELLING, GS_JOB_PAUSED, GS_JOB_CANCELLING},
    {GS_JOB_RUNNING, NONE, GS_JOB_PAUSED, GS_JOB_RUNNING},
    {GS_JOB_CANCELLING, NONE, GS_JOB_PAUSED, GS_JOB_CANCELLING},
    /* An end stays one: */
    {GS_JOB_RUNNING, GS_JOB_PAUSING, GS_JOB_SUCCEEDED, GS_JOB_SUCCEEDED},
    {GS_JOB_CANCELLING, NONE, GS_JOB_CANCELLED, GS_JOB_CANCELLED},
    {GS_JOB_QUEUED, GS_JOB_CANCELLED, NONE, GS_JOB_CANCELLED},
};

static void what_is_acknowledged_is_written(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const gs_job job = {.state = cases[i].state, .asked = cases[i].asked, .wanted = cases[i].wanted};
        const gs_job_state written = gs_job_state_to_write(&job);
        if (written != cases[i].written) {
            fail_msg("case %zu: %s, not %s", i, gs_job_state_name(written),
                     gs_job_state_name(cases[i].written));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_acknowledged_is_written)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
