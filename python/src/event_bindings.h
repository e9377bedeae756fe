// EventQueue for the Python side of the module.
#pragma once

#include <nanobind/nanobind.h>

namespace switchyard::python {

void bind_events(nanobind::module_& module);

}  // namespace switchyard::python
