# Plain comments as Doxygen reads them; the first of a file is the file's.
s|^( *)// |\1/// |
s|^( *)//$|\1///|
1s|^/// |/// @file\n/// |
1s|^/\*$|/** @file|
