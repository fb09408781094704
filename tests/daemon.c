/* daemon.c -- start and stop the daemon, run programs, hold their files. */
#include "tests/support.h"

#include "tests/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clients/c/gradd.h"

enum { PATH = 512, MAX_ARGUMENTS = 64, WAIT_MS = 60 * 1000 };

/* ---- folders -------------------------------------------------------------------------------------- */

void test_folder_make(test_folder *folder) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder->path, sizeof folder->path, "%s/gradd-test-XXXXXX",
             parent && *parent ? parent : P_tmpdir);
    assert_non_null(mkdtemp(folder->path));
}

static void remove_tree(const char *path) {
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char inner[PATH];
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        bool dots = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
        if (!dots && unlinkat(dirfd(directory), entry->d_name, 0) && errno == EISDIR) {
            remove_tree(inner);
        }
    }
    closedir(directory);
    rmdir(path);
}

void test_folder_remove(const test_folder *folder) {
    remove_tree(folder->path);
}

void test_folder_write(const test_folder *folder, const char *name, const void *data, size_t size,
                       char *path) {
    snprintf(path, PATH, "%s/%s", folder->path, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* ---- programs ------------------------------------------------------------------------------------- */

const char *test_program(const char *name, char *path) {
    const char *directory = getenv("BUILD_DIR");
    if (!directory) {
        fail_msg("BUILD_DIR is not set: the folder with gradd and gradctl, such as build/release");
    }
    snprintf(path, PATH, "%s/%s", directory, name);
    return path;
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Start a program with its output in two files. It dies with the test program, whatever happens. */
static pid_t spawn(const char *const *arguments, const char *const *environment, const char *out,
                   const char *err) {
    char *copy[MAX_ARGUMENTS + 1] = {0};
    for (size_t i = 0; i < MAX_ARGUMENTS && arguments[i]; i++) {
        copy[i] = strdup(arguments[i]);
        assert_non_null(copy[i]);
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDONLY);
        int to_out = open(out, O_WRONLY | O_CREAT | O_APPEND, 0600);
        int to_err = open(err, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (null < 0 || to_out < 0 || to_err < 0 || dup2(null, 0) < 0 || dup2(to_out, 1) < 0 ||
            dup2(to_err, 2) < 0) {
            _exit(127);
        }
        setenv("GRADD_EPHEMERAL", "true", 1); /* no test writes where the user's state is */
        for (size_t i = 0; environment && environment[i]; i++) {
            char *entry = strdup(environment[i]);
            if (!entry || putenv(entry)) {
                _exit(127);
            }
        }
        execv(copy[0], copy);
        _exit(127);
    }
    for (size_t i = 0; i < MAX_ARGUMENTS; i++) {
        free(copy[i]);
    }
    return pid;
}

int test_wait(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        assert_int_equal(errno, EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t test_start(const char *const *arguments, const char *const *environment, const test_folder *folder) {
    char out[PATH], err[PATH];
    test_folder_write(folder, "out", "", 0, out);
    test_folder_write(folder, "err", "", 0, err);
    return spawn(arguments, environment, out, err);
}

void test_run(const char *const *arguments, const char *const *environment, test_output *ret_output) {
    test_folder folder;
    char path[PATH];
    test_folder_make(&folder);
    ret_output->status = test_wait(test_start(arguments, environment, &folder));
    snprintf(path, sizeof path, "%s/out", folder.path);
    ret_output->out = test_read_file(path, NULL);
    snprintf(path, sizeof path, "%s/err", folder.path);
    ret_output->err = test_read_file(path, NULL);
    test_folder_remove(&folder);
}

void test_output_release(test_output *output) {
    free(output->out);
    free(output->err);
}

/* ---- the daemon ----------------------------------------------------------------------------------- */

/* The port from the file, or 0 while it is not there. */
static int read_port(const char *path) {
    int port = 0;
    FILE *file = fopen(path, "r");
    if (file) {
        char line[16] = "";
        bool whole = fgets(line, sizeof line, file) && strchr(line, '\n');
        port = whole ? (int)strtol(line, NULL, 10) : 0;
        fclose(file);
    }
    return port;
}

static void fail_with_log(const test_daemon *daemon, const char *log, const char *what) {
    (void)daemon;
    char *text = test_read_file(log, NULL);
    print_error("the daemon's log:\n%s\n", text);
    free(text);
    fail_msg("the daemon %s", what);
}

void test_daemon_start(test_daemon *daemon, const char *const *arguments) {
    char program[PATH], port_file[PATH], log[PATH];
    const char *all[MAX_ARGUMENTS + 1] = {test_program("gradd", program), "--listen", "127.0.0.1:0",
                                          "--port-file", port_file};
    size_t count = 5;
    bool lasts = false; /* it says where its state is */
    for (; arguments && *arguments && count < MAX_ARGUMENTS; arguments++) {
        all[count++] = *arguments;
        lasts = lasts || !strcmp(*arguments, "--data-dir");
    }
    test_folder_make(&daemon->folder);
    test_folder_write(&daemon->folder, "log", "", 0, log);
    snprintf(port_file, sizeof port_file, "%s/port", daemon->folder.path);
    daemon->pid = spawn(all, lasts ? (const char *const[]){"GRADD_EPHEMERAL=false", NULL} : NULL, log, log);
    for (int waited = 0; !(daemon->port = read_port(port_file)); waited += 1) {
        if (waited > WAIT_MS || waitpid(daemon->pid, NULL, WNOHANG) != 0) {
            fail_with_log(daemon, log, "did not start");
        }
        pause_ms(1);
    }
    snprintf(daemon->server, sizeof daemon->server, "http://127.0.0.1:%d", daemon->port);

    gradd_client *client = NULL;
    gradd_error error = {0};
    gradd_config config = {.server = daemon->server};
    assert_int_equal(gradd_client_new(&config, &client, NULL), GRADD_OK);
    for (int waited = 0; gradd_server_ready(client, &error); waited += 1) {
        if (waited > WAIT_MS) {
            print_error("%s\n", error.message);
            fail_with_log(daemon, log, "is not ready");
        }
        pause_ms(1);
    }
    gradd_client_free(client);
}

char *test_daemon_end(test_daemon *daemon) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/log", daemon->folder.path);
    assert_int_equal(kill(daemon->pid, SIGTERM), 0);
    int status = test_wait(daemon->pid);
    if (status != 0) {
        print_error("exit status %d\n", status);
        fail_with_log(daemon, path, "did not end well");
    }
    char *log = test_read_file(path, NULL);
    test_folder_remove(&daemon->folder);
    return log;
}

void test_daemon_stop(test_daemon *daemon) {
    free(test_daemon_end(daemon));
}

void test_daemon_expect_log(const test_daemon *daemon, const char *part) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/log", daemon->folder.path);
    char *log = test_read_file(path, NULL);
    if (!strstr(log, part)) {
        fail_with_log(daemon, path, "does not log it");
    }
    free(log);
}

void test_daemon_kill(test_daemon *daemon) {
    assert_int_equal(kill(daemon->pid, SIGKILL), 0);
    assert_int_equal(test_wait(daemon->pid), 128 + SIGKILL);
    test_folder_remove(&daemon->folder);
}

test_daemon test_shared;

int test_shared_start(void **state) {
    (void)state;
    test_daemon_start(&test_shared, NULL);
    return 0;
}

int test_shared_stop(void **state) {
    (void)state;
    test_daemon_stop(&test_shared);
    return 0;
}
