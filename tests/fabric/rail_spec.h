// Which rails the tests run on. A specification is FABRIC[@DEVICE[+DEVICE]]: "shm", "verbs@mlx5_0",
// "verbs@rxe0+rxe1" (one end of each path on either). The environment's SWITCHYARD_TEST_FABRICS lists what to
// test, as words; without it these are the fabrics that every machine has.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "fabric/fabric.h"

namespace switchyard::fabric {

inline std::vector<std::string> tested_rails() {
  const char* listed = std::getenv("SWITCHYARD_TEST_FABRICS");
  if (listed == nullptr) return {"shm", "net", "tcp;ofi_rxm"};
  std::istringstream words(listed);
  return {std::istream_iterator<std::string>(words), {}};
}

// Opens the rail of one side, 0 or 1.
inline Result<std::shared_ptr<Fabric>> open_rail(const std::string& specification, int side) {
  const auto at = specification.find('@');
  FabricOptions options;
  if (at != std::string::npos) {
    const std::string devices = specification.substr(at + 1);
    const auto plus = devices.find('+');
    options.device =
        side == 0 || plus == std::string::npos ? devices.substr(0, plus) : devices.substr(plus + 1);
  }
  return open_fabric(specification.substr(0, at), options);
}

// For the names of tests.
inline std::string readable(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

}  // namespace switchyard::fabric
