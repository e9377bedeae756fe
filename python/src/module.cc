// switchyard._core: the engine's classes. The package around it (python/switchyard) adds asyncio, handlers
// and the exceptions' classes.
#include <nanobind/nanobind.h>
#include <spdlog/spdlog.h>

#include "base/log.h"
#include "engine.h"
#include "errors.h"
#include "event_bindings.h"
#include "names.h"
#include "operation.h"
#include "region.h"
#include "submission.h"

NB_MODULE(_core, module) {
  using namespace switchyard::python;
  // A program may end with engines that it never closed.
  nanobind::set_leak_warnings(false);
  if (spdlog::get("switchyard") == nullptr) switchyard::log::start("switchyard", "warn");
  module.doc() = "The transfer engine, bare. Import switchyard instead.";
  bind_errors(module);
  bind_names(module);
  bind_regions(module);
  bind_events(module);
  bind_operations(module);
  bind_submission(module);
  bind_engine(module);
}
