#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory_), {}));
  }

  fs::path directory_ = temporary_beside(fs::temp_directory_path() / "switchyard-files");
};

TEST_F(Files, AreReplacedAndReadWhole) {
  const fs::path file = directory_ / "a" / "b";
  const std::string large(200000, 'x');
  ASSERT_TRUE(replace_file(file, large));
  EXPECT_EQ(read_file(file, large.size()).value(), large);
  ASSERT_TRUE(replace_file(file, std::string_view("a\0b", 3)));
  EXPECT_EQ(read_file(file, 3).value(), std::string("a\0b", 3));
  ASSERT_TRUE(replace_file(file, ""));
  EXPECT_EQ(read_file(file, 0).value(), "");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_ / "a"), {}), 1);
}

TEST_F(Files, OfTheWrongKindOrSizeAreRefusedAtOnce) {
  EXPECT_EQ(read_file(directory_ / "none", 9).error().code, ErrorCode::not_found);
  EXPECT_EQ(read_file(directory_, 9).error().code, ErrorCode::invalid);
  const fs::path pipe = directory_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(read_file(pipe, 9).error().code, ErrorCode::invalid);
  EXPECT_EQ(read_file("/dev/zero", 9).error().code, ErrorCode::invalid);
  ASSERT_TRUE(replace_file(directory_ / "file", "0123456789"));
  EXPECT_EQ(read_file(directory_ / "file", 9).error().code, ErrorCode::out_of_range);
  // Says that it has no bytes, and has some.
  EXPECT_FALSE(read_file("/proc/self/status", 1 << 16).value().empty());
}

TEST_F(Files, ThatCannotBeReplacedStayAndLeaveNothingBeside) {
  fs::create_directories(directory_ / "full" / "of");
  EXPECT_EQ(replace_file(directory_ / "full", "x").error().code, ErrorCode::io);
  EXPECT_EQ(entries(), 1u);
  ASSERT_TRUE(replace_file(directory_ / "file", "x"));
  EXPECT_EQ(replace_file(directory_ / "file" / "below", "x").error().code, ErrorCode::io);
  EXPECT_EQ(read_file(directory_ / "file", 9).value(), "x");
}

}  // namespace
}  // namespace switchyard
