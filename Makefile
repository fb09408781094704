# gradd -- one non-recursive Makefile. `make help` lists the targets.

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --no-print-directory -j$(shell nproc)
endif

BUILD ?= release
B     := build/$(BUILD)
VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

OBJCOPY ?= objcopy
PREFIX ?= /usr/local
DESTDIR ?=

# ---- flags ----------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wpointer-arith -Wundef \
        -Wformat=2 -Wvla -Wno-override-init -Wno-missing-field-initializers -Wno-format-truncation -Werror=implicit
ifdef CI
WARN += -Werror
endif
ifneq (,$(findstring clang,$(CC)))
WARN := $(filter-out -Wno-override-init,$(WARN)) -Wno-initializer-overrides -Wno-unknown-warning-option
endif
MODE_release := -O3 -g -DNDEBUG -D_FORTIFY_SOURCE=2 -fstack-protector-strong
MODE_debug   := -O0 -g3
MODE_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
MODE_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
MODE_coverage := -O0 -g --coverage -fprofile-update=atomic
SANITIZE_asan := -fsanitize=address,undefined
SANITIZE_tsan := -fsanitize=thread
SANITIZE_coverage := --coverage

CFLAGS_ALL  = -std=c17 -D_GNU_SOURCE -I. -fPIC -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp-simd -fvisibility=hidden -pthread \
              -include tests/lint/banned.h $(WARN) $(MODE_$(BUILD)) -MMD -MP $(DEFINES) $(CFLAGS)
LDFLAGS_ALL = -pthread $(SANITIZE_$(BUILD)) -Wl,-z,relro,-z,now $(LDFLAGS)

LIBS_engine := -lopenblas -lm
LIBS_proto  := -ljansson -lz
LIBS_server := -lmicrohttpd -luv -lnettle -lsqlite3
LIBS_client := -lcurl -ljansson -lz

# ---- what there is -------------------------------------------------------------------------------
src = $(sort $(wildcard $(addsuffix /*.c,$(1))))
obj = $(patsubst %,$(B)/obj/%.o,$(basename $(1)))

ENGINE := $(call src,engine/core engine/graph engine/ops engine/optim engine/kernels engine/model engine/data)
CODEC  := proto/codec.c proto/npy.c proto/safetensors.c proto/idx.c
PROTO  := $(call src,proto)
SERVER := $(call src,server server/handlers)
CLIENT := $(call src,clients/c) $(CODEC)
CTL    := $(call src,clients/ctl)

# What computes is compiled once more for each instruction set, into one object that shows its tables alone;
# engine/graph/isa.c chooses among them.
ISAS_x86_64 := avx2 avx512 amx
ISAS        := $(ISAS_$(shell $(CC) -dumpmachine | sed 's/-.*//'))
FLAGS_avx2   := -march=x86-64-v3 -mprfchw
FLAGS_avx512 := -march=x86-64-v4 -mprfchw -mprefer-vector-width=512
FLAGS_amx    := $(FLAGS_avx512) -mamx-tile -mamx-bf16
COMPUTE := $(call src,engine/ops engine/optim engine/kernels) engine/graph/tables.c

OBJ_ENGINE := $(call obj,$(ENGINE)) $(patsubst %,$(B)/obj/%.o,$(ISAS))
OBJ_PROTO  := $(call obj,$(PROTO)) $(B)/obj/proto/openapi.o
OBJ_SERVER := $(call obj,$(SERVER))
OBJ_CLIENT := $(call obj,$(CLIENT))
OBJ_CTL    := $(call obj,$(CTL))

BIN := $(B)/gradd $(B)/gradctl $(B)/libgradd.a $(B)/libgradd.so $(B)/tutorial

.PHONY: all deps deps-lint demo test test-mode torture coverage lint bench install docker clean help
.DEFAULT_GOAL := all
all: $(BIN) ## the daemon, gradctl, libgradd and the tutorial in build/<mode>/

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  BUILD=release|debug|asan|tsan; make test T=engine/ops runs a part; V=1 shows commands"

Q := $(if $(V),,@)

$(B)/obj/%.o: %.c | deps
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC   $<")
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@

define isa_rules
$(B)/obj/$(1)/%.o: %.c | deps
	@mkdir -p $$(@D)
	$$(if $$(V),,@echo "  CC   $$< ($(1))")
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$(FLAGS_$(1)) -DGD_ISA=$(1) -c $$< -o $$@
$(B)/obj/$(1).o: $(patsubst %.c,$(B)/obj/$(1)/%.o,$(COMPUTE))
	$$(Q)$$(LD) -r -o $$@ $$^ && $$(OBJCOPY) --keep-global-symbol=gd_isa_$(1) $$@
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rules,$(isa))))

$(B)/obj/%.o: %.S proto/openapi.json | deps
	@mkdir -p $(@D)
	$(if $(V),,@echo "  AS   $<")
	$(Q)$(CC) -I. -c $< -o $@

# A body's fingerprint, by larger vectors.
$(B)/obj/server/fingerprint_avx2.o: DEFINES += $(if $(filter avx2,$(ISAS)),-mavx2)

# The version goes into one object; it is made anew when the commit changes.
$(B)/obj/server/version.o: DEFINES += -DGRADD_COMMIT='"$(COMMIT)"' -DGRADD_BUILD='"$(BUILD)"' -DGRADD_FLAGS='"$(strip $(MODE_$(BUILD)))"'
$(call obj,server/version.c clients/c/version.c clients/ctl/main.c): DEFINES += -DGRADD_VERSION='"$(VERSION)"'
$(B)/obj/server/version.o: $(B)/commit
$(B)/commit: FORCE
	@mkdir -p $(@D); echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' >$@
.PHONY: FORCE

define link
	$(if $(V),,@echo "  LD   $@")
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o %.a,$^) $(1)
endef

$(B)/gradd: $(OBJ_SERVER) $(OBJ_PROTO) $(OBJ_ENGINE)
	$(call link,$(LIBS_server) $(LIBS_proto) $(LIBS_engine))
$(B)/libgradd.a: $(OBJ_CLIENT)
	$(Q)rm -f $@; $(AR) rcs $@ $^
$(B)/libgradd.so: $(OBJ_CLIENT)
	$(call link,-shared -Wl$(comma)-soname$(comma)libgradd.so.0 $(LIBS_client))
$(B)/gradctl: $(OBJ_CTL) $(B)/libgradd.a
	$(call link,$(LIBS_client) -lnettle -lm)
$(B)/tutorial: $(call obj,clients/examples/tutorial.c) $(B)/libgradd.a
	$(call link,$(LIBS_client) -lm)
comma := ,

# ---- tests: every tests/<dir>/<name>_test.c is a program -------------------------------------------
TESTS   := $(call src,tests/engine tests/proto tests/server tests/clients tests/e2e tests/torture)
TESTS   := $(filter %_test.c,$(TESTS))
SUPPORT := $(call obj,$(call src,tests))
T ?=
RUN     := $(filter tests/$(T)%,$(TESTS))
BIN_TEST = $(patsubst tests/%.c,$(B)/tests/%,$(RUN))

$(B)/tests/%: $(B)/obj/tests/%.o $(SUPPORT) $(B)/obj/server.a $(OBJ_PROTO) $(OBJ_ENGINE) $(filter-out %/main.o,$(OBJ_CTL)) $(B)/libgradd.a
	@mkdir -p $(@D)
	$(call link,-lcmocka $(LIBS_client) $(LIBS_server) $(LIBS_proto) $(LIBS_engine))
$(B)/obj/server.a: $(filter-out %/main.o,$(OBJ_SERVER)) # of which a test takes what it uses
	$(Q)rm -f $@; $(AR) rcs $@ $^
$(B)/tests/bench/bench: $(call obj,$(call src,tests/bench))
TORTURE := $(filter tests/torture/%_test.c,$(TESTS))
$(patsubst tests/%.c,$(B)/tests/%,$(TORTURE)): $(call obj,$(filter-out $(TORTURE) tests/torture/fail.c,$(call src,tests/torture)))
$(B)/tests/torture/faults_test: | $(B)/tests/torture/fail.so
$(B)/tests/torture/fail.so: tests/torture/fail.c tests/torture/fail.h
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE -I. $(WARN) -O2 -fPIC -shared -o $@ $< -ldl
.SECONDARY:

ifeq ($(origin BUILD),command line)
MODES := $(BUILD)
else
MODES := release asan tsan
endif
test: deps ## every test, in release, under ASan+UBSan, and the daemon's under TSan
	$(Q)for mode in $(MODES); do $(MAKE) --no-print-directory test-mode BUILD=$$mode || exit 1; done

test-mode: all $(BIN_TEST)
	$(Q)BUILD_DIR=$(B) tests/run $(BUILD) $(if $(T),--only $(T)) $(BIN_TEST)

ROUNDS ?= 200
torture: deps ## kill the daemon 200 times under load, end it as often, let each call that stores something fail
	$(Q)$(MAKE) --no-print-directory all $(patsubst tests/%.c,$(B)/tests/%,$(TORTURE))
	$(Q)BUILD_DIR=$(B) $(B)/tests/torture/kill_test --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))
	$(Q)BUILD_DIR=$(B) $(B)/tests/torture/faults_test --every 1

COVERAGE ?= 90
coverage: deps ## how many of the engine's lines its tests run; fails under COVERAGE=90 percent
	$(Q)find build/coverage -name '*.gcda' -delete 2>/dev/null || true
	$(Q)TEST_TIMEOUT=900 $(MAKE) --no-print-directory test-mode BUILD=coverage T=engine/
	$(Q)tests/coverage build/coverage $(COVERAGE)

# ---- the rest -------------------------------------------------------------------------------------
deps: ## install what is missing, from Debian packages
	$(Q)tests/deps build
deps-lint:
	$(Q)tests/deps lint

lint: deps deps-lint ## include directions, clang-format, clang-tidy, cppcheck, openapi
	$(Q)tests/lint/run

EPOCHS ?= 3
demo: deps ## the main job: train LeNet over HTTP and print the test accuracy
	$(Q)$(MAKE) --no-print-directory all BUILD=$(BUILD)
	$(Q)BUILD_DIR=$(B) MNIST="$(MNIST)" EPOCHS="$(EPOCHS)" clients/examples/demo.sh

bench: all ## engine, daemon and PyTorch side by side in one run
	+$(Q)BUILD_DIR=$(B) tests/bench/run

install: all ## into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 $(B)/gradd $(B)/gradctl $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(B)/libgradd.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(B)/libgradd.so $(DESTDIR)$(PREFIX)/lib/libgradd.so.$(VERSION)
	ln -sf libgradd.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libgradd.so.0
	ln -sf libgradd.so.0 $(DESTDIR)$(PREFIX)/lib/libgradd.so
	install -m 644 clients/c/gradd.h $(DESTDIR)$(PREFIX)/include
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' clients/c/libgradd.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/libgradd.pc

docker: ## the container image, with docker or buildah
	$(Q)docker/build

clean: ## remove build/
	rm -rf build

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
