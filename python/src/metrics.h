// An engine's metrics as plain Python values.
#pragma once

#include <nanobind/nanobind.h>

#include "switchyard/transfer.h"

namespace switchyard::python {

nanobind::dict to_dict(const EngineMetrics& metrics);

}  // namespace switchyard::python
