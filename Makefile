# make              build/rouse, build/librouse.a, build/librouse.so, build/rouse.so (for plain Lua)
# make demo         the whole system on an embedded Kafka and an embedded Code Engine
# make test         lint, C units, specs            make SAN=address,undefined test   the same under sanitizers
# make test-kafka   specs on a real Apache Kafka    make test-image   the container image, built and run
# make install      PREFIX=/usr/local DESTDIR=      make bench        figures, side by side with what they compare to
# make sim SEEDS=10000   schedules of the wake engine in virtual time      make sim-exhaustive   every interleaving of small worlds
# make deps GROUPS="build test kafka bench image"         installs the Debian packages that are missing

SAN ?=
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
LUA ?= lua5.4
GROUPS ?= build
comma := ,
# make V=1 shows the commands whole.
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)")

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null | sed 's/^v//' | grep '^[0-9]*\.' || cat resources/version)
PACKAGES := rdkafka libcurl lua5.4 libuv libmicrohttpd yaml-0.1 jansson
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla -Wconversion
CFLAGS ?= -O2 -g
# Looked up when first needed, so that `make deps` works before pkg-config is there.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PACKAGES)))$(PKG_LIBS)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
REAL_CFLAGS = -std=c11 -D_GNU_SOURCE -DROUSE_VERSION='"$(VERSION)"' -fPIC -fno-plt -fvisibility=hidden $(WARNINGS) \
              $(if $(CI),-Werror) $(PKG_CFLAGS) $(SANFLAGS) $(CFLAGS)

SOURCES := $(filter-out src/main.c,$(wildcard src/*.c))
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/%.o) $(BUILD)/embed.o
MODULES := $(sort $(shell find lua -name '*.lua' ! -name meta.lua))
EMBEDDED := $(MODULES) $(wildcard scripts/*.lua) $(wildcard resources/kafkadata)
UNITS := $(patsubst spec/c/%.c,$(BUILD)/spec/%,$(wildcard spec/c/test_*.c))
# Sanitizers want to be loaded before the stock interpreter.
RUN_ENV := ROUSE_BUILD=$(BUILD) $(if $(SAN),LD_PRELOAD=$$(gcc -print-file-name=libasan.so))

all: need-build $(BUILD)/rouse $(BUILD)/librouse.a $(BUILD)/librouse.so $(BUILD)/rouse.so $(BUILD)/rouse-uninstalled.pc

deps:
	@sh resources/deps.sh $(GROUPS)

need-%:
	@sh resources/deps.sh --missing $*

$(BUILD)/%.o: src/%.c | need-build
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(REAL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/embed.o: $(BUILD)/embed.c
	$(Q)$(CC) $(REAL_CFLAGS) -Isrc -c -o $@ $<

$(BUILD)/embed.c: resources/embed.lua $(EMBEDDED) | need-build
	@mkdir -p $(@D)
	$(call say,EMBED lua scripts resources)
	$(Q)$(LUA) resources/embed.lua $(EMBEDDED) "$$($(LUA) -e 'print((assert(package.searchpath("argparse", package.path))))')" > $@

$(BUILD)/librouse.a: $(OBJECTS)
	$(call say,AR $@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/librouse.so.0: $(OBJECTS)
	$(call say,LD $@)
	$(Q)$(CC) -shared -Wl,-soname,librouse.so.0 -Wl,-z,nodelete -Wl,--version-script=resources/librouse.map $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/librouse.so: $(BUILD)/librouse.so.0
	$(Q)ln -sf librouse.so.0 $@

$(BUILD)/rouse.so: $(OBJECTS)
	$(call say,LD $@)
	$(Q)$(CC) -shared -Wl,-z,nodelete -Wl,--version-script=resources/librouse.map $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(filter-out -llua5.4,$(PKG_LIBS))

$(BUILD)/rouse: $(BUILD)/main.o $(OBJECTS)
	$(call say,LD $@)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

# pkg-config prefers NAME-uninstalled where it is on its path: programs build against the build directory with it.
pc = sed -e 's|@PREFIX@|$(1)|; s|@LIBDIR@|$(2)|; s|@INCLUDEDIR@|$(3)|; s|@VERSION@|$(VERSION)|' resources/rouse.pc.in
$(BUILD)/rouse-uninstalled.pc: resources/rouse.pc.in Makefile
	@mkdir -p $(@D)
	$(Q)$(call pc,$(CURDIR),$(abspath $(BUILD)),$(CURDIR)/src) > $@

$(BUILD)/spec/%: spec/c/%.c $(BUILD)/librouse.a | need-test
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(REAL_CFLAGS) -Isrc -o $@ $< $(BUILD)/librouse.a $(PKG_LIBS) -lcmocka -lm

lint: need-test need-build
	@if command -v clang >/dev/null; then clang $(REAL_CFLAGS) -Werror -Isrc -fsyntax-only src/*.c spec/c/*.c; fi
	@luacheck -q lua scripts spec bench resources
	@shellcheck run.sh resources/*.sh .ci/run spec/run spec/kafka/run spec/kafka/with-broker spec/kafka/broker.sh bench/run spec/image/run spec/stub/ibmcloud

# The simulation is Lua alone: sanitizers have nothing to look at there. From the end of the alphabet,
# where the long ones are not left for last.
test: need-test all $(UNITS) $(if $(SAN),,lint)
	@for unit in $(UNITS); do $$unit || { echo "failed: $$unit"; exit 1; }; done
	@ROUSE_BUILD=$(BUILD) $(if $(SAN),ROUSE_PRELOAD=$$(gcc -print-file-name=libasan.so)) spec/run \
	  $$(find spec -name '*_spec.lua' ! -path 'spec/kafka/*' $(if $(SAN),! -path 'spec/sim/*') | sort -r)

test-kafka: need-test need-kafka all
	$(RUN_ENV) spec/kafka/run

# SEED=n starts there: make sim SEED=4711 SEEDS=1 repeats one schedule.
sim:
	@$(LUA) spec/sim/main.lua $(or $(SEED),1) $(or $(SEEDS),1000)

sim-exhaustive:
	@$(LUA) spec/sim/exhaustive.lua $(SECONDS)

test-image: need-image need-test all
	ROUSE_BUILD=$(BUILD) spec/image/run

demo: all
	@$(BUILD)/rouse demo

bench: need-test need-kafka need-bench all
	ROUSE_BUILD=$(BUILD) bench/run

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/man/man1 \
	           $(DESTDIR)$(PREFIX)/share/rouse $(DESTDIR)$(LIBDIR)/lua/5.4
	install -m 755 $(BUILD)/rouse $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/librouse.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(BUILD)/librouse.so.0 $(DESTDIR)$(LIBDIR)/
	ln -sf librouse.so.0 $(DESTDIR)$(LIBDIR)/librouse.so
	install -m 755 $(BUILD)/rouse.so $(DESTDIR)$(LIBDIR)/lua/5.4/
	$(call pc,$(PREFIX),$(LIBDIR),$(PREFIX)/include) > $(DESTDIR)$(LIBDIR)/pkgconfig/rouse.pc
	install -m 644 src/rouse.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 resources/rouse.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 scripts/*.lua resources/kafkadata $(DESTDIR)$(PREFIX)/share/rouse/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/rouse $(DESTDIR)$(LIBDIR)/librouse.a $(DESTDIR)$(LIBDIR)/librouse.so \
	      $(DESTDIR)$(LIBDIR)/librouse.so.0 $(DESTDIR)$(LIBDIR)/lua/5.4/rouse.so $(DESTDIR)$(LIBDIR)/pkgconfig/rouse.pc \
	      $(DESTDIR)$(PREFIX)/include/rouse.h $(DESTDIR)$(PREFIX)/share/man/man1/rouse.1
	rm -rf $(DESTDIR)$(PREFIX)/share/rouse

clean:
	rm -rf build build-*

-include $(wildcard $(BUILD)/*.d)
.DELETE_ON_ERROR:
.PHONY: all deps lint test sim sim-exhaustive test-kafka test-image demo bench install uninstall clean
