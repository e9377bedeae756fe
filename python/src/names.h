// What travels between processes: PeerAddress, RegionKey, CounterId.
#pragma once

#include <nanobind/nanobind.h>

namespace switchyard::python {

void bind_names(nanobind::module_& module);

}  // namespace switchyard::python
