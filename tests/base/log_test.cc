// Lines of a program that says twice who it is.
#include "base/log.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace switchyard {
namespace {

TEST(Log, StartedAgainItReplacesWhatWasSet) {
  const auto before = spdlog::default_logger();
  log::start("twice", "off");
  log::start("twice", "error");
  if (std::getenv("SWITCHYARD_LOG") == nullptr) {
    EXPECT_EQ(spdlog::default_logger()->level(), spdlog::level::err);
  }
  EXPECT_EQ(spdlog::default_logger()->name(), "twice");
  spdlog::set_default_logger(before);
}

}  // namespace
}  // namespace switchyard
