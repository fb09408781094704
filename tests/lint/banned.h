/* banned.h -- functions that have no safe use; included before everything, so using one is an error. */
#ifndef GRADD_BANNED_H
#define GRADD_BANNED_H
#include <alloca.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#undef alloca
#pragma GCC poison strcpy strcat sprintf vsprintf gets atoi atol atof strtok alloca gmtime localtime ctime
#endif
