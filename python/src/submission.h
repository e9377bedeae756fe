// What Python passes to the submitting calls, as the engine wants it.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>

#include "engine.h"
#include "switchyard/transfer.h"

namespace switchyard::python {

// PeerGroup and Priority; before bind_engine, whose default arguments they are.
void bind_submission(nanobind::module_& module);

// write, write_pages, scatter and signal.
void bind_submitting(nanobind::class_<PyEngine>& engine);

}  // namespace switchyard::python
