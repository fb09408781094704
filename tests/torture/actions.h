/* actions.h -- what the files of actions share: actions.c (models, datasets, metrics, the table), trained.c
 * (a model that is trained by requests, and its checkpoints), job.c (jobs). */
#ifndef GRADD_TESTS_TORTURE_ACTIONS_H
#define GRADD_TESTS_TORTURE_ACTIONS_H

#include "client.h"

/** One of the client's things: names begin with what it is and whose, and end with its place or number.
 *  @return text */
const char *torture_name(const client *c, const char *what, unsigned number, char text[64]);
/** POST a model under a key of its own: as often as one likes, there is one. @return status */
int torture_make_model(client *c, const char *name, unsigned seed, double lr);

/* trained.c */
bool torture_begin_trained(client *c);
/** Take step i, for the first time or again: what comes must be what came in the run that nothing
 *  interrupted. @return status; -1: it was not */
int torture_take_step(client *c, int i);
bool torture_step(client *c);
bool torture_verify_steps(client *c);
bool torture_make_checkpoint(client *c);
bool torture_drop_checkpoint(client *c);
bool torture_verify_checkpoints(client *c);
bool torture_restore(client *c);
bool torture_verify_restore(client *c);

/* job.c */
bool torture_job(client *c);
bool torture_verify_job(client *c);
bool torture_pause_job(client *c);
bool torture_cancel_job(client *c);
bool torture_verify_cancelled(client *c);

#endif
